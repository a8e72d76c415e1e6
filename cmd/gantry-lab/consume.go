package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
)

// consume reads what arrives in Kafka, through cuts of the uplink, until ctx ends.
func (l *lab) consume(ctx context.Context) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(l.kafka.Addr), kgo.ConsumeTopics(labTopic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return fmt.Errorf("consume from the stand-in: %w", err)
	}
	defer client.Close()
	for {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		fetches.EachRecord(func(r *kgo.Record) {
			var reading struct {
				Device string `json:"device"`
				N      int    `json:"n"`
			}
			if json.Unmarshal(r.Value, &reading) == nil {
				l.ledger.arrived(reading.Device, reading.N)
			}
		})
	}
}
