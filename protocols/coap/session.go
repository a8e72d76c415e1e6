package coap

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"sync/atomic"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"

	"gantry/broker"
)

// sessionMemory caps what waits for one observer, about 150 small messages. A
// UDP peer that is gone looks like one that is slow, so there may be thousands
// of them; and an observer wants the newest state (RFC 7641 section 1.3), not
// all that were.
const sessionMemory = 32 << 10

// handle is what a loop uses of *broker.Session.
type handle interface {
	Start()
	Publish(ctx context.Context, m *broker.Message, packetID uint16, done func(broker.Reason))
	Release(packetID uint16, done func(broker.Reason))
	Subscribe(subs []broker.Subscription, done func([]broker.Reason, []broker.QoS))
	Unsubscribe(filters []string, done func([]broker.Reason))
	Next(dst []broker.Delivery) []broker.Delivery
	Acked(packetID uint16) broker.Reason
	Received(packetID uint16, failed bool, done func(broker.Reason))
	Retained(topic string) (*broker.Message, broker.Reason)
	Close(c broker.Closing)
}

var _ handle = (*broker.Session)(nil)

// connector opens sessions; tests put their own in place of the broker.
type connector interface {
	connect(ctx context.Context, r *broker.ConnectRequest) (handle, error)
}

type brokerConnector struct{ broker *broker.Broker }

func (c brokerConnector) connect(ctx context.Context, r *broker.ConnectRequest) (handle, error) {
	s, _, err := c.broker.Connect(ctx, r)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// deliveriesAtOnce is how many deliveries are taken from a session at a time.
const deliveriesAtOnce = 16

// session is the broker session of one client id at one peer. All of a peer's
// requests that name the same client id, and its observations, share it. It
// belongs to the mutex of its loop.
type session struct {
	peer        *peer
	clientID    string
	credentials [sha256.Size]byte
	handle      handle
	closed      bool
	used        time.Duration // last request
	pending     int           // publishes under way
	idle        timer

	observations   []*observation
	registering    int // Subscribe calls that the broker has not answered
	subscriptionID uint32
	publishID      uint16 // packet id of the last QoS 2 publish

	woken   atomic.Bool // an eventWake is on its way
	backlog []broker.Delivery
	buffer  [deliveriesAtOnce]broker.Delivery
	held    int // confirmable notifications and fetches that the next delivery waits for
}

// sessionFor returns the peer's session for the client id of a request, and
// opens it when there is none. A request with other credentials than the
// session was opened with must pass authentication itself.
func (l *loop) sessionFor(p *peer, q *params) (*session, broker.Reason) {
	id := q.clientID
	if id == "" {
		id = "coap-" + p.addr.String()
	}
	who := broker.ConnectRequest{ClientID: id, Credentials: q.credentials, Listener: l.cfg.Name}
	if err := l.cfg.Naming.Identify(&who); err != nil {
		return nil, broker.ReasonOf(err)
	}
	id, q.credentials = who.ClientID, who.Credentials
	proof := digest(&q.credentials)
	var old *session
	for _, s := range p.sessions {
		if s.clientID != id {
			continue
		}
		if s.credentials == proof {
			s.used = l.now
			return s, broker.Success
		}
		old = s
	}
	if old == nil && !l.roomForSession(p) {
		return nil, broker.QuotaExceeded
	}
	s, err := l.openSession(p, id, proof, q)
	if err != nil {
		l.log.Debug("coap session refused", "client", id, "remote", p.addr, "err", err)
		return nil, broker.ReasonOf(err)
	}
	if old != nil {
		l.endSession(old, closeTakenOver)
	}
	p.sessions = append(p.sessions, s)
	return s, broker.Success
}

func (l *loop) openSession(p *peer, id string, proof [sha256.Size]byte, q *params) (*session, error) {
	s := &session{peer: p, clientID: id, credentials: proof, used: l.now}
	s.idle.fire = func() { l.sessionIdle(s) }
	h, err := l.core.connect(l.ctx, &broker.ConnectRequest{
		ClientID: id, Credentials: q.credentials, Protocol: "coap", Version: "1", Listener: l.cfg.Name,
		RemoteAddr: p.addr, CleanStart: true, Mountpoint: l.cfg.Naming.Mountpoint,
		// One confirmable notification at a time (RFC 7641 section 4.5.1).
		ReceiveMaximum: 1, KeepAlive: l.cfg.SessionIdle, MemoryBytes: sessionMemory,
		Wake: func() {
			if s.woken.CompareAndSwap(false, true) {
				l.events.post(event{kind: eventWake, session: s})
			}
		},
		Kick: func(r broker.Reason) { l.events.post(event{kind: eventKick, session: s, reason: r}) },
	})
	if err != nil {
		return nil, err
	}
	s.handle = h
	h.Start()
	l.metrics.sessions.Inc()
	l.timers.set(&s.idle, l.now+l.cfg.SessionIdle)
	return s, nil
}

// digest lets credentials be compared without keeping them.
func digest(c *broker.Credentials) [sha256.Size]byte {
	if !c.HasUsername && !c.HasPassword {
		return [sha256.Size]byte{}
	}
	b := make([]byte, 0, 16+len(c.Username)+len(c.Password))
	b = append(b, boolByte(c.HasUsername), boolByte(c.HasPassword))
	b = binary.AppendUvarint(b, uint64(len(c.Username)))
	b = append(b, c.Username...)
	return sha256.Sum256(append(b, c.Password...))
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// roomForSession ends the peer's least recently used session that nothing
// depends on, if the peer is at its cap.
func (l *loop) roomForSession(p *peer) bool {
	if len(p.sessions) < l.cfg.MaxSessionsPerPeer {
		return true
	}
	var oldest *session
	for _, s := range p.sessions {
		if s.quiet() && (oldest == nil || s.used < oldest.used) {
			oldest = s
		}
	}
	if oldest == nil {
		return false
	}
	l.endSession(oldest, closeIdle)
	return true
}

// quiet reports whether nothing depends on the session.
func (s *session) quiet() bool {
	return len(s.observations) == 0 && s.pending == 0 && s.registering == 0
}

// sessionIdle ends a session that was not used for its time.
func (l *loop) sessionIdle(s *session) {
	due := s.used + l.cfg.SessionIdle
	if !s.quiet() {
		due = l.now + l.cfg.SessionIdle
	}
	if due > l.now {
		l.timers.set(&s.idle, due)
		return
	}
	l.endSession(s, closeIdle)
}

// ending says why a session ends and what its observers are told: code 0 means
// nothing, because they are gone or have a new session.
type ending struct {
	reason broker.Reason
	code   codes.Code
}

var (
	closeIdle        = ending{reason: broker.Success}
	closeUnreachable = ending{reason: broker.KeepAliveTimeout}
	closeTakenOver   = ending{reason: broker.TakenOver, code: codes.Forbidden}
	closeShutdown    = ending{reason: broker.ShuttingDown, code: codes.ServiceUnavailable}
)

// endSession closes a session with its observations.
func (l *loop) endSession(s *session, e ending) {
	if s.closed {
		return
	}
	s.closed = true
	for len(s.observations) > 0 {
		o := s.observations[0]
		if e.code != 0 {
			l.sendFarewell(o, e.code)
		}
		l.dropObservation(o)
	}
	l.timers.stop(&s.idle)
	s.backlog = nil
	p := s.peer
	if i := slices.Index(p.sessions, s); i >= 0 {
		p.sessions = slices.Delete(p.sessions, i, i+1)
	}
	l.metrics.sessions.Dec()
	s.handle.Close(broker.Closing{Reason: e.reason, KeepWill: true})
}

// kicked ends a session that the broker wants gone.
func (l *loop) kicked(s *session, r broker.Reason) {
	if s.handle == nil {
		return
	}
	l.endSession(s, ending{reason: r, code: codeOf(r)})
}

// sendFarewell tells an observer that its observation is over: a notification
// with an error code and without Observe (RFC 7641 section 4.2).
func (l *loop) sendFarewell(o *observation, code codes.Code) {
	p := o.session.peer
	data, err := l.enc.encode(header{typ: message.NonConfirmable, mid: p.nextMID(), token: o.token}, refusal(code, ""))
	if err == nil {
		l.send(p, data)
	}
}
