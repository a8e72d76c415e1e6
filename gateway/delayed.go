package gateway

import (
	"context"

	"gantry/broker"
	"gantry/gateway/admin"
	"gantry/gateway/config"
)

// delayedConfig translates the limits. What the file calls 0 is off.
func delayedConfig(c *config.Delayed) broker.DelayedConfig {
	d := broker.DelayedConfig{MaxMessages: c.MaxMessages, MaxBytes: int64(c.MaxBytes)}
	if d.MaxMessages == 0 {
		d.MaxMessages = -1
	}
	return d
}

func (g *Gateway) delayed(after uint64, limit int) []admin.Delayed {
	found := g.broker.Delayed(after, limit)
	list := make([]admin.Delayed, len(found))
	for i := range found {
		d := &found[i]
		list[i] = admin.Delayed{
			ID: d.ID, Topic: d.Topic, ClientID: d.ClientID, Due: d.Due, Size: d.Size, QoS: int(d.QoS), Retain: d.Retain, Attempts: d.Attempts,
		}
		if d.Attempts > 0 {
			list[i].Reason = d.Reason.String()
		}
	}
	return list
}

func (g *Gateway) deleteDelayed(ctx context.Context, id uint64) (bool, error) {
	return g.broker.DeleteDelayed(ctx, id)
}
