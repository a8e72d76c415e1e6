package broker

import (
	"net/netip"
	"strings"
	"time"
)

const sysTopic = "$SYS"

// isSys reports whether a topic, or all that a filter matches, belongs to the
// broker itself.
func isSys(topic string) bool { return topic == sysTopic || strings.HasPrefix(topic, sysTopic+"/") }

// PublishSystem publishes below $SYS, where clients may not. The message goes
// with QoS 0 to those who are subscribed; with Retain it is also kept, in
// memory only, and an empty payload clears it. Hooks, recorders and the store
// see nothing of it. It does not block. The message belongs to the broker
// afterwards.
func (b *Broker) PublishSystem(m *Message) Reason {
	if ValidTopic(m.Topic) != nil || !isSys(m.Topic) {
		return InvalidTopic
	}
	m.QoS = 0
	if m.Time == 0 {
		m.Time = nowMillis()
	}
	switch {
	case !m.Retain:
	case len(m.Payload) == 0:
		b.system.clear(m.Topic)
	default:
		b.system.set(m)
	}
	p := &Publication{Message: m}
	targets := b.match(p)
	for i := range targets {
		b.deliver(p, &targets[i])
	}
	return Success
}

// SystemWatched reports whether anybody is subscribed to a topic below $SYS:
// what is not retained need not be made for nobody.
func (b *Broker) SystemWatched(topic string) bool {
	targets, _ := b.router.match(topic)
	return len(targets) > 0
}

// retainedValue returns what is retained under a topic, the broker's own
// included.
func (b *Broker) retainedValue(topic string) *Message {
	if isSys(topic) {
		return b.system.get(topic, nowMillis())
	}
	return b.retained.get(topic, nowMillis())
}

// eachRetained visits what is retained and matches a filter. Wildcards at the
// beginning of a filter match nothing of the broker's own [MQTT-4.7.2-1].
func (b *Broker) eachRetained(filter string, visit func(*Message) bool) {
	if isSys(filter) {
		b.system.match(filter, nowMillis(), visit)
		return
	}
	b.retained.match(filter, nowMillis(), visit)
}

// ConnectionEvent says that a connection got a session, or lost it.
type ConnectionEvent struct {
	Connected  bool
	At         time.Time
	Reason     Reason // why it ended; Success while it lives
	ClientID   string
	Username   string
	Protocol   string
	Version    string
	Listener   string
	RemoteAddr netip.AddrPort
	KeepAlive  time.Duration
	Expiry     time.Duration
	CleanStart bool // as asked for
}

// tell reports a change of the connection to whoever wants to know. Caller
// holds life.
func (s *Session) tell(connected bool, r Reason) {
	watch := s.broker.cfg.OnConnection
	if watch == nil {
		return
	}
	watch(ConnectionEvent{
		Connected: connected, At: time.Now(), Reason: r, ClientID: s.clientID, Username: s.username, Protocol: s.protocol,
		Version: s.version, Listener: s.listener, RemoteAddr: *s.remote.Load(), KeepAlive: s.keepAlive, Expiry: s.Expiry(), CleanStart: s.cleanStart,
	})
}
