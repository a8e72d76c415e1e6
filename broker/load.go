package broker

import (
	"context"
	"maps"
	"slices"
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
		b.noteExpiry(m)
	}
	for i := range state.Sessions {
		b.restore(&state.Sessions[i])
	}
	b.resumeAll()
	b.restoreDelayed(state.Delayed)
	b.log.Info("state loaded", "sessions", len(state.Sessions), "retained", len(state.Retained), "delayed", len(state.Delayed), "subscriptions", b.router.count())
	return nil
}

// resumeAll starts the timers of the restored sessions. Some are over at once,
// and what they leave to members of shared subscriptions needs those.
func (b *Broker) resumeAll() {
	b.mu.Lock()
	all := slices.Collect(maps.Values(b.sessions))
	b.mu.Unlock()
	now := nowMillis()
	for _, st := range all {
		st.mu.Lock()
		b.resumeTimers(st, now)
		st.mu.Unlock()
	}
}

func (b *Broker) restore(stored *StoredSession) {
	rec := &stored.Record
	st := &sessionState{
		broker: b, id: rec.ClientID, mount: rec.Mount, durable: rec.Expiry > 0, username: rec.Username, protocol: rec.Protocol, expiry: rec.Expiry,
		detached: rec.DetachedAt, stored: true, onDisk: true, will: rec.Will,
		nextSeq: max(1, rec.NextSeq, stored.Last+1, stored.Sent+1), sentMark: stored.Sent, bytes: stored.Bytes,
	}
	if stored.Count > 0 {
		st.sharing = true
		st.spill, st.pushed = spill{from: stored.First, count: stored.Count}, stored.Last
	}
	for _, id := range stored.Inbound {
		if st.inbound == nil {
			st.inbound = make(map[uint16]*inbound)
		}
		st.inbound[id] = &inbound{settled: true, unsure: true}
	}
	for i := range stored.Subscriptions {
		sub := &subscription{Subscription: stored.Subscriptions[i]}
		if sub.ID != 0 {
			sub.ids = []uint32{sub.ID}
		}
		if IsExclusive(sub.Filter) {
			if ok, _ := b.exclusive.hold(sub.Filter, st); !ok {
				b.heldTwice(st, sub.Filter)
				continue
			}
		}
		if st.subs == nil {
			st.subs = make(map[string]*subscription)
		}
		st.subs[sub.Filter] = sub
		st.sharing = st.sharing || IsShared(sub.Filter)
		b.router.add(st, sub)
	}
	b.sessions[st.id] = st
	if st.durable {
		b.kept++
	}
}

// clockSet is the beginning of 2020 in Unix milliseconds. An earlier time was
// noted before the clock of a box without battery was set, and says nothing
// about how long ago that was.
const clockSet = 1_577_836_800_000

// resumeTimers starts what runs while a session is detached by the end of the
// gateway. The time before the restart counts where it is known. Caller holds
// mu of st.
func (b *Broker) resumeTimers(st *sessionState, now int64) {
	away := time.Duration(0)
	if st.detached >= clockSet {
		away = time.Duration(max(0, now-st.detached)) * time.Millisecond
	} else {
		st.detached = now
	}
	if st.will != nil {
		st.startWill(max(st.will.Delay-away, willGrace))
	}
	switch {
	case st.expiry == 0 && st.will == nil:
		st.startExpiry(0)
	case st.expiry > 0 && st.expiry != NeverExpires:
		st.startExpiry(max(st.expiry-away, 0))
	}
}
