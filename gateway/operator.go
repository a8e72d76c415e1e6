package gateway

import (
	"context"
	"fmt"
	"time"

	"gantry/broker"
	"gantry/gateway/admin"
)

// adminDeps shows the parts to the operator interface.
func (g *Gateway) adminDeps() admin.Deps {
	return admin.Deps{
		Status: g.status, Ready: g.ready, Bridges: g.bridgeList, Peek: g.peek, Sessions: g.sessions,
		Kick:   func(id string) bool { return g.broker.Kick(id, broker.Administrative) },
		Alarms: g.alarms, PauseBridge: g.pauseBridge,
		Delayed: g.delayed, DeleteDelayed: g.deleteDelayed,
	}
}

func (g *Gateway) pauseBridge(name string, pause bool) error {
	p := g.bridge(name)
	if p == nil {
		return admin.ErrUnknownBridge
	}
	if pause {
		p.forwarder.Pause()
		return nil
	}
	p.forwarder.Resume()
	return nil
}

// bridge returns nil when there is none of that name.
func (g *Gateway) bridge(name string) *bridgePart {
	for _, p := range g.bridges {
		if p.cfg.Name == name {
			return p
		}
	}
	return nil
}

func (g *Gateway) status(context.Context) admin.Status {
	s := g.broker.Stats()
	st := admin.Status{
		Version: Version, Node: g.node, StartedAt: g.startedAt, UptimeSeconds: int64(time.Since(g.startedAt).Seconds()),
		Connections: s.Connected, Sessions: s.Sessions, Subscriptions: s.Subscriptions, Retained: int(s.Retained), Delayed: s.Delayed.Waiting,
		Listeners: g.listenerStatus(&s),
		Messages:  admin.MessageCounts{Dropped: s.Dropped},
		Store:     admin.StoreStatus{Type: string(g.cfg.Store.Type), Writable: !g.watch.storeFailing.Load()},
	}
	for q := range s.Received {
		st.Messages.In += s.Received[q]
		st.Messages.Out += s.Sent[q]
	}
	if !st.Store.Writable {
		st.Store.Detail = "the last writes failed; publishers get a negative acknowledgement"
	}
	return st
}

// ready lists what keeps the gateway from taking messages. A bridge that
// refuses is not among them: its uplink is away, and that is normal.
func (g *Gateway) ready(context.Context) []string {
	var problems []string
	if g.watch.storeFailing.Load() {
		problems = append(problems, "the store cannot be written")
	}
	for _, p := range g.bridges {
		if p.failing.Load() {
			problems = append(problems, fmt.Sprintf("the queue of bridge %s cannot be written", p.cfg.Name))
		}
	}
	return problems
}

func (g *Gateway) bridgeList() []admin.Bridge {
	list := make([]admin.Bridge, len(g.bridges))
	for i, p := range g.bridges {
		list[i] = p.status()
	}
	return list
}

func (g *Gateway) peek(_ context.Context, name string, n int, dead bool) ([]admin.QueuedRecord, error) {
	p := g.bridge(name)
	if p == nil {
		return nil, admin.ErrUnknownBridge
	}
	return PeekQueue(p.queue.Dir(), n, dead)
}

func (g *Gateway) sessions() []admin.Session {
	all := g.broker.Sessions()
	list := make([]admin.Session, len(all))
	for i := range all {
		list[i] = sessionInfo(&all[i])
	}
	return list
}

func sessionInfo(s *broker.SessionInfo) admin.Session {
	a := admin.Session{
		ClientID: s.ClientID, Username: s.Username, Protocol: s.Protocol, Version: s.Version, Listener: s.Listener, RemoteAddr: s.RemoteAddr,
		Connected: s.Connected, ExpirySeconds: int64(s.Expiry.Seconds()), Subscriptions: len(s.Subscriptions), Queued: s.Queued, Inflight: s.InFlight,
	}
	if s.Expiry == broker.NeverExpires {
		a.ExpirySeconds = -1
	}
	if s.Connected {
		a.ConnectedAt = &s.ConnectedAt
	}
	return a
}
