package broker

import (
	"cmp"
	"slices"
	"time"
)

// SessionInfo describes one session for listings.
type SessionInfo struct {
	ClientID      string
	Username      string
	Protocol      string
	Version       string
	Listener      string
	RemoteAddr    string // "" while detached
	Connected     bool
	ConnectedAt   time.Time // zero while detached
	DetachedAt    time.Time // zero while connected
	KeepAlive     time.Duration
	Expiry        time.Duration
	Subscriptions []Subscription
	Queued        int   // messages waiting
	QueuedBytes   int64 // of QoS 1 and 2, in flight included
	InFlight      int
	Received      uint64 // from the client since it connected
	Delivered     uint64 // to the client since it connected
}

// Sessions lists all sessions, ordered by client identifier.
func (b *Broker) Sessions() []SessionInfo {
	b.mu.Lock()
	all := make([]*sessionState, 0, len(b.sessions))
	for _, st := range b.sessions {
		all = append(all, st)
	}
	b.mu.Unlock()
	list := make([]SessionInfo, 0, len(all))
	for _, st := range all {
		list = append(list, st.info())
	}
	slices.SortFunc(list, func(a, b SessionInfo) int { return cmp.Compare(a.ClientID, b.ClientID) })
	return list
}

// Session describes one session.
func (b *Broker) Session(clientID string) (SessionInfo, bool) {
	st := b.find(clientID)
	if st == nil {
		return SessionInfo{}, false
	}
	return st.info(), true
}

func (st *sessionState) info() SessionInfo {
	st.mu.Lock()
	defer st.mu.Unlock()
	i := SessionInfo{
		ClientID: st.id, Username: st.username, Protocol: st.protocol, Expiry: st.expiry,
		Queued: st.queue.len() + st.spill.count, QueuedBytes: st.bytes, InFlight: st.window.len(),
	}
	for _, sub := range st.subs {
		i.Subscriptions = append(i.Subscriptions, sub.Subscription)
	}
	o := st.owner
	if o == nil {
		i.DetachedAt = time.UnixMilli(st.detached)
		return i
	}
	i.Connected, i.ConnectedAt, i.KeepAlive = true, o.connectedAt, o.keepAlive
	i.Version, i.Listener, i.RemoteAddr = o.version, o.listener, o.remote.Load().String()
	i.Received, i.Delivered = o.received.Load(), o.delivered.Load()
	return i
}
