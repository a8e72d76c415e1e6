package broker

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Credentials are what a client said about itself.
type Credentials struct {
	Username    string
	HasUsername bool
	Password    []byte
	HasPassword bool
}

// ConnectRequest is what an adapter knows of a client that wants a session.
type ConnectRequest struct {
	ClientID    string // "" = the broker assigns one
	Credentials Credentials
	Protocol    string // "mqtt", "coap" or "http"
	Version     string // of the protocol, for listings
	Listener    string
	RemoteAddr  netip.AddrPort
	// Local says that the client is on this machine although it has no
	// RemoteAddr: it came over a Unix socket.
	Local bool
	// Verified says that the transport has proved who the client is, such as by
	// a certificate, and that Credentials.Username is that identity and not
	// what the client called itself.
	Verified bool

	// Mountpoint is put before the client's topics and filters; nil = none.
	// Naming.Identify sets it.
	Mountpoint *Template

	CleanStart bool          // an earlier session of this client id is ended, not resumed
	Expiry     time.Duration // how long the session outlives its connection; 0 = ends with it
	// ReceiveMaximum is the most QoS 1 and 2 deliveries that the client takes
	// unacknowledged; 0 = 65,535.
	ReceiveMaximum uint16
	KeepAlive      time.Duration // for listings; adapters enforce it
	// MemoryBytes caps what the session holds in memory below the broker's
	// own cap; 0 = the broker's. For peers of which many may be dead.
	MemoryBytes int
	Will        *Will

	// Wake is called when the outbox went from idle to ready. It must not
	// block and may be called from any goroutine; no lock is held.
	Wake func()
	// Kick is called when the broker wants the connection gone. It must not
	// block; the adapter tells its peer and closes. Calling Close afterwards
	// is allowed and does nothing if the session has a new owner.
	Kick func(Reason)
}

// Session is the handle of one connection on its session. It stays valid
// until Close, or until another connection takes the session over: from then
// on its methods answer Closed. All methods are safe for concurrent use, Next
// by one goroutine at a time.
type Session struct {
	broker *Broker
	state  *sessionState

	clientID       string
	username       string
	protocol       string
	version        string
	listener       string
	remote         atomic.Pointer[netip.AddrPort]
	keepAlive      time.Duration
	connectedAt    time.Time
	cleanStart     bool
	receiveMaximum int
	memoryBytes    int
	expiry         atomic.Int64
	wake           func()
	kick           func(Reason)
	gone           atomic.Bool // detached, by whatever
	names          *names      // nil: topics are used as the client sends them

	traffic *traffic

	cacheMu sync.Mutex // covers cache
	cache   matchCache

	received, delivered atomic.Uint64 // messages
}

// ClientID returns the client identifier, the assigned one included.
func (s *Session) ClientID() string { return s.clientID }

// Expiry returns how long the session will outlive its connection, after the
// broker's cap.
func (s *Session) Expiry() time.Duration { return time.Duration(s.expiry.Load()) }

// Moved takes note that the client goes on from another address. Listings and
// events show it from then on.
func (s *Session) Moved(to netip.AddrPort) { s.remote.Store(&to) }

// Start opens the outbox. The adapter calls it once its answer to the client's
// connect is queued, so that no message precedes it.
func (s *Session) Start() {
	st := s.state
	st.mu.Lock()
	if st.owner == s {
		st.started = true
		st.idle = true
	}
	wake := st.nudge()
	st.mu.Unlock()
	wakeUp(wake)
}

// match finds the sessions for a topic. The cache serves one publisher at a
// time; a second one that runs at the same moment goes to the router.
func (s *Session) match(topic string) []target {
	if !s.cacheMu.TryLock() {
		t, _ := s.broker.router.match(topic)
		return t
	}
	defer s.cacheMu.Unlock()
	return s.cache.match(&s.broker.router, topic)
}

// Retained returns the retained value of a topic, nil when there is none. The
// message is shared: it must not be changed.
func (s *Session) Retained(topic string) (*Message, Reason) {
	if s.gone.Load() {
		return nil, Closed
	}
	if ValidTopic(topic) != nil {
		return nil, InvalidTopic
	}
	topic, r := s.names.retained(topic)
	if r != Success {
		return nil, r
	}
	return s.broker.retainedValue(topic), Success
}

// RetainedMatch calls visit for the retained values that a filter matches
// until visit returns false. visit must not block.
func (s *Session) RetainedMatch(filter string, visit func(*Message) bool) Reason {
	if s.gone.Load() {
		return Closed
	}
	if ValidFilter(filter) != nil || IsShared(filter) {
		return InvalidFilter
	}
	filter, r := s.names.filter(filter)
	if r != Success {
		return r
	}
	s.broker.eachRetained(filter, visit)
	return Success
}

// Inject publishes without a session: a will, a message that a bridge brings.
// It behaves as Session.Publish does for QoS 0 and 1.
func (b *Broker) Inject(ctx context.Context, m *Message, done func(Reason)) {
	b.inject(ctx, m, false, done)
}

func (b *Broker) inject(ctx context.Context, m *Message, will bool, done func(Reason)) {
	due, r := b.cutDelayed(m)
	if r == Success && (ValidTopic(m.Topic) != nil || m.QoS > 2) {
		r = InvalidTopic
	}
	if r != Success {
		answer(done, r)
		return
	}
	if m.Time == 0 {
		m.Time = nowMillis()
	}
	b.publish(ctx, &Publication{Message: m, due: due, will: will, done: done}, nil)
}

func answer(done func(Reason), r Reason) {
	if done != nil {
		done(r)
	}
}
