package broker

import (
	"context"
	"time"
)

// load puts the stored state into memory. No session has an owner yet.
func (b *Broker) load(ctx context.Context) error {
	state, err := b.store.Load(ctx)
	if err != nil {
		return err
	}
	for _, m := range state.Retained {
		b.retained.set(m)
	}
	now := nowMillis()
	for i := range state.Sessions {
		b.restore(&state.Sessions[i], now)
	}
	b.log.Info("state loaded", "sessions", len(state.Sessions), "retained", len(state.Retained), "subscriptions", b.router.count())
	return nil
}

func (b *Broker) restore(stored *StoredSession, now int64) {
	rec := &stored.Record
	st := &sessionState{
		broker: b, id: rec.ClientID, username: rec.Username, protocol: rec.Protocol, expiry: rec.Expiry,
		detached: rec.DetachedAt, stored: true, will: rec.Will,
		nextSeq: max(1, rec.NextSeq, stored.Last+1, stored.Sent+1), sentMark: stored.Sent, bytes: stored.Bytes,
	}
	if stored.Count > 0 {
		st.spill, st.pushed = spill{from: stored.First, count: stored.Count}, stored.Last
	}
	for _, id := range stored.Inbound {
		if st.inbound == nil {
			st.inbound = make(map[uint16]*inbound)
		}
		st.inbound[id] = &inbound{settled: true}
	}
	for i := range stored.Subscriptions {
		sub := &subscription{Subscription: stored.Subscriptions[i]}
		if sub.ID != 0 {
			sub.ids = []uint32{sub.ID}
		}
		if st.subs == nil {
			st.subs = make(map[string]*subscription)
		}
		st.subs[sub.Filter] = sub
		b.router.add(st, sub)
	}
	b.sessions[st.id] = st
	b.resumeTimers(st, now)
}

// resumeTimers starts what runs while a session is detached. The time before
// the restart counts where it is known.
func (b *Broker) resumeTimers(st *sessionState, now int64) {
	away := time.Duration(0)
	if st.detached != 0 {
		away = time.Duration(max(0, now-st.detached)) * time.Millisecond
	} else {
		st.detached = now
	}
	if st.will != nil {
		delay := max(st.will.Delay-away, willGrace)
		st.willing = time.AfterFunc(delay, func() { b.spawn(func() { b.willDue(st) }) })
	}
	switch {
	case !st.durable() && st.will == nil:
		st.expiring = time.AfterFunc(0, func() { b.spawn(func() { b.expired(st) }) })
	case st.durable() && st.expiry != NeverExpires:
		st.expiring = time.AfterFunc(max(st.expiry-away, 0), func() { b.spawn(func() { b.expired(st) }) })
	}
}
