// Package kafka is the bridge to Apache Kafka: a [Sink] that is its own producer
// on sarama's Client, Broker and RecordBatch.
//
// Records leave in rounds. A round is the next stretch of the queue, at most one
// batch for each partition, and up to five rounds are under way at once. Before
// the first byte of a round is sent, its bounds, producer id and sequence
// numbers are on disk (see journal.go). After a lost connection or a crash of
// either side the sink reads the same stretch of the queue again, builds the
// same batches with the same numbers and sends them again; the broker drops what
// it has already. Only then it goes on, after a restart with a new producer id.
//
// The package guarantees, with acks=all: nothing is lost; nothing arrives twice
// or out of its order within a partition, except where gantry_kafka_dedup_resets_total
// counts; what Kafka will never take goes to the dead-letter file and holds
// nothing up; an absent Kafka is asked again for ever. A topic that does not
// exist, or may not be written to, stops the bridge visibly until it does: its
// records cannot be told from those that an operator wants to keep.
//
// docs/adr/0004-kafka-producer-core.md tells why it is so and what was proven.
package kafka
