package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/IBM/sarama"
	"github.com/prometheus/client_golang/prometheus"

	"gantry/bridge"
)

// Sink sends the records of one queue to Kafka.
type Sink struct {
	cfg     Config
	codec   sarama.CompressionCodec
	log     *slog.Logger
	metrics metrics
	journal *journal

	// The rest belongs to the run that is going on.

	producer int64 // -1 for none
	epoch    int16
	topics   *topics
	slab     *slab
	live     []plan              // rounds that may be under way, oldest first
	buried   map[uint64]struct{} // records that are in the dead-letter file and not yet confirmed
}

var _ bridge.Sink = (*Sink)(nil)

// New opens the journal in cfg.Dir and returns a sink. It does not connect.
// Log and reg may be nil.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Sink, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("bridge %s: %w", cfg.Bridge, err)
	}
	cfg.setDefaults()
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Sink{
		cfg: cfg, codec: codecs[cfg.Compression], log: log.With("bridge", cfg.Bridge),
		producer: -1, topics: newTopics(), buried: map[uint64]struct{}{},
	}
	if err := s.metrics.register(cfg.Bridge, reg); err != nil {
		return nil, fmt.Errorf("bridge %s: register metrics: %w", cfg.Bridge, err)
	}
	var err error
	if s.journal, err = openJournal(cfg.Dir); err != nil {
		s.metrics.unregister()
		return nil, fmt.Errorf("bridge %s: open the journal: %w", cfg.Bridge, err)
	}
	s.slab = newSlab(cfg.Node, s.journal.id)
	s.live, s.journal.live = s.journal.live, nil
	if s.journal.gap {
		s.resetDedup("the journal is damaged")
	}
	return s, nil
}

// Close closes the journal and removes the metrics. It must not be called while
// Run is going on. Safe to call twice.
func (s *Sink) Close() error {
	if s.journal == nil {
		return nil
	}
	s.metrics.unregister()
	err := s.journal.close()
	s.journal = nil
	return err
}

// resetDedup counts that records may arrive twice from here on.
func (s *Sink) resetDedup(why string) {
	s.metrics.resets.Inc()
	s.log.Warn("records that were under way may arrive twice", "why", why)
}

// run is one call of Run, from connecting to the first error.
type run struct {
	*Sink
	ctx  context.Context //nolint:containedctx // of the call that this value lives in
	feed *bridge.Feed
	conn *connection

	inbox    inbox
	pending  int    // requests without an answer
	frontier uint64 // first record that is not confirmed

	// The record at the head of the feed, while have is set.
	have   bool
	seq    uint64
	raw    []byte
	record bridge.Record
	flaw   error // why the record cannot be decoded

	skipped     uint64 // records below it that are in no round are buried
	outstanding []*round
	trouble     bool      // an answer was bad: nothing new is sent
	lastSend    time.Time // of a new round
	blocked     error     // why the record at the head cannot be sent at present
}

var errStopping = errors.New("asked to stop")

// Run is for the Forwarder, see bridge.Sink.
func (s *Sink) Run(ctx context.Context, feed *bridge.Feed) error {
	if n := len(s.live); n > 0 {
		feed.Pin(s.live[n-1].end())
	}
	conn, err := connect(ctx, &s.cfg)
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	defer conn.close()
	s.topics.forgetConnection()
	x := &run{Sink: s, ctx: ctx, feed: feed, conn: conn, frontier: feed.Frontier()}
	x.inbox.nudge = make(chan struct{}, 1)
	err = x.forward()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errStopping):
		return nil
	}
	return lasting(err)
}

// forward settles what an earlier run left and then streams.
func (x *run) forward() error {
	if err := x.resolve(); err != nil {
		return err
	}
	for {
		if x.producer < 0 {
			if err := x.newProducer(); err != nil {
				return err
			}
		}
		x.feed.Connected()
		open, top, err := x.stream()
		if err != nil {
			return err
		}
		if err := x.repair(top, open); err != nil {
			return err
		}
	}
}

// newProducer takes a new producer id; nothing may be under way.
func (x *run) newProducer() error {
	id, epoch, err := x.conn.producerID()
	if err != nil {
		return err
	}
	x.producer, x.epoch = id, epoch
	x.topics.forgetProducer()
	return nil
}

// stopping reports whether the Forwarder wants an end.
func (x *run) stopping() bool {
	select {
	case <-x.feed.Stopping():
		return true
	default:
		return false
	}
}

// confirm moves the frontier; records and bytes are what was settled with it.
func (x *run) confirm(to uint64, records, bytes int) {
	if to <= x.frontier && records == 0 {
		return
	}
	x.frontier = max(x.frontier, to)
	x.feed.Confirm(x.frontier, records, bytes)
	for seq := range x.buried {
		if seq < x.frontier {
			delete(x.buried, seq)
		}
	}
}

// rewind makes the next record the first one from seq on.
func (x *run) rewind(seq uint64) {
	x.feed.Rewind(seq)
	x.have = false
}

// peek makes sure that there is a record at the head; its error is io.EOF when
// there is none yet.
func (x *run) peek() error {
	if x.have {
		return nil
	}
	seq, raw, err := x.feed.Read()
	if err != nil {
		return err
	}
	x.have, x.seq, x.raw = true, seq, raw
	x.flaw = x.record.Decode(raw)
	return nil
}

// bury puts the record at the head into the dead-letter file.
func (x *run) bury(reason string) error {
	if _, done := x.buried[x.seq]; !done {
		x.log.Warn("record goes to the dead-letter file", "seq", x.seq, "why", reason)
		if err := x.feed.Bury(x.seq, x.raw, reason); err != nil {
			return fmt.Errorf("write record %d to the dead-letter file: %w", x.seq, err)
		}
		x.buried[x.seq] = struct{}{}
	}
	x.have = false
	return nil
}
