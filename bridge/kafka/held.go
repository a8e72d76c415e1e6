package kafka

import (
	"fmt"

	"github.com/IBM/sarama"
)

// A broker remembers the last five batches of a producer in a partition, but
// saves only the last one: after it was killed twice in a row it answers
// OUT_OF_ORDER_SEQUENCE_NUMBER to a batch that is in its log. It still knows the
// number of the producer's last record, and as it took our batches in their
// order, everything up to that number is in the log.

// findHeld settles the batches of a repeated round that the leaders disown and
// yet have. Where a leader does not tell, a batch stays disowned.
func (x *run) findHeld(r *round) {
	for i := range r.batches {
		t := &r.batches[i]
		if t.answer != disowned {
			continue
		}
		held, err := x.conn.holds(&r.plan, t)
		if err != nil {
			x.log.Warn("cannot find out whether a batch is in the log", "topic", t.topic, "partition", t.partition, "err", err)
		}
		if held {
			t.answer, t.err = settled, nil
			r.open--
		}
	}
}

// holds asks the leader of the batch's partition whether it has the batch
// (DescribeProducers, KIP-664: brokers from 2.8 on, for who may read the topic).
func (c *connection) holds(p *plan, t *batch) (bool, error) {
	leader, err := c.Leader(t.topic, t.partition)
	if err != nil {
		return false, err
	}
	resp, err := leader.DescribeProducers(&sarama.DescribeProducersRequest{
		Topics: []sarama.DescribeProducersRequestTopic{{Name: t.topic, PartitionIndexes: []int32{t.partition}}},
	})
	if err != nil {
		return false, fmt.Errorf("ask %s for its producers: %w", leader.Addr(), err)
	}
	for _, topic := range resp.Topics {
		for _, part := range topic.Partitions {
			if part.ErrorCode != sarama.ErrNoError {
				return false, fmt.Errorf("ask %s for its producers: %w", leader.Addr(), part.ErrorCode)
			}
			for _, s := range part.ActiveProducers {
				if s.ProducerID == p.producer && s.ProducerEpoch == int32(p.epoch) {
					return s.LastSequence >= 0 && reached(s.LastSequence, advance(t.first, t.count-1)), nil
				}
			}
		}
	}
	return false, nil
}

// reached reports whether last is seq or one of the numbers after it; they begin
// again at 0 behind 2^31-1.
func reached(last, seq int32) bool { return uint32(last-seq)&(1<<31-1) < 1<<30 }
