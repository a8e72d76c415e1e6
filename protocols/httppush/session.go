package httppush

import (
	"container/list"
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"gantry/broker"
)

// connectTimeout bounds the authentication of a client.
const connectTimeout = 10 * time.Second

// sessions keeps the sessions of the clients that send requests, one for each
// client id. A session is opened by the first request that needs it and shared
// by those that agree in the key; it ends when it was not used for a while.
// When a request with the same client id and another key comes, its session
// takes over, as with every protocol.
type sessions struct {
	broker   *broker.Broker
	listener string
	mount    *broker.Template
	idle     time.Duration
	max      int
	digest   digestKey
	log      *slog.Logger
	base     context.Context // ends when the server gives up on its requests
	nudge    chan struct{}   // something waits in ended

	mu     sync.Mutex // covers what follows and the entries' refs, since, place, lost
	byID   map[string]*entry
	unused list.List // of entries without users, the longest unused first
	ended  []*entry  // to be closed by the janitor
	closed bool
}

// entry is one session and the requests that use it.
type entry struct {
	key     key
	ready   chan struct{} // closed once session or err is there
	session *broker.Session
	err     error

	refs  int
	since time.Time     // unused since
	place *list.Element // in unused
	lost  bool          // not in byID any more; closed when refs is 0
}

func newSessions(base context.Context, b *broker.Broker, cfg *Config, log *slog.Logger) *sessions {
	return &sessions{
		broker: b, listener: cfg.Name, mount: cfg.Naming.Mountpoint, idle: cfg.SessionIdle, max: cfg.MaxSessions, digest: newDigestKey(), log: log, base: base,
		nudge: make(chan struct{}, 1), byID: make(map[string]*entry),
	}
}

// acquire returns the session for an identity, opening it if need be. The
// caller releases it. ctx bounds the wait for another request that opens it;
// opening itself is not cancelled with the request, because others share it.
func (s *sessions) acquire(ctx context.Context, id *identity) (*entry, error) {
	e, open, err := s.lookup(s.digest.of(id))
	if err != nil {
		return nil, err
	}
	if open {
		s.open(e, id)
	}
	select {
	case <-e.ready:
	case <-ctx.Done():
		s.release(e)
		return nil, refuse(broker.ServerBusy, "the session was not opened in time")
	}
	if e.err != nil {
		s.release(e)
		return nil, e.err
	}
	return e, nil
}

// lookup finds the entry for a key, or makes one that the caller must open.
func (s *sessions) lookup(k key) (e *entry, open bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, false, refuse(broker.ShuttingDown, "the gateway is shutting down")
	}
	e = s.byID[k.clientID]
	if e != nil && e.key == k {
		e.refs++
		s.used(e)
		return e, false, nil
	}
	if e != nil {
		s.lose(e)
	}
	if len(s.byID) >= s.max && !s.evict() {
		return nil, false, refuse(broker.ServerBusy, "too many clients at a time")
	}
	e = &entry{key: k, ready: make(chan struct{}), refs: 1}
	s.byID[k.clientID] = e
	return e, true, nil
}

// evict makes room by ending the session that was unused for longest.
func (s *sessions) evict() bool {
	front := s.unused.Front()
	if front == nil {
		return false
	}
	s.lose(front.Value.(*entry))
	return true
}

// open asks the broker for the session of e and tells those who wait.
func (s *sessions) open(e *entry, id *identity) {
	e.err = refuse(broker.Unspecified, "the session was not opened") // what others see if connect panics
	defer func() {
		if e.err != nil {
			s.mu.Lock()
			s.forget(e)
			s.mu.Unlock()
		}
		close(e.ready)
	}()
	ctx, cancel := context.WithTimeout(s.base, connectTimeout)
	defer cancel()
	e.session, e.err = s.connect(ctx, e, id)
}

func (s *sessions) connect(ctx context.Context, e *entry, id *identity) (*broker.Session, error) {
	request := broker.ConnectRequest{
		ClientID: id.clientID, Credentials: id.credentials, Protocol: "http", Version: id.version, Listener: s.listener,
		RemoteAddr: id.remote, CleanStart: true, KeepAlive: s.idle, Mountpoint: s.mount,
		Kick: func(r broker.Reason) { s.kicked(e, r) },
	}
	if info, ok := s.broker.Session(id.clientID); ok && info.Protocol != "http" {
		return nil, s.occupied(ctx, request)
	}
	session, _, err := s.broker.Connect(ctx, &request)
	if err != nil {
		return nil, refusal(err, &id.credentials)
	}
	return session, nil
}

// occupied answers a client whose id belongs to a client of another protocol:
// opening the session would end that one, with what waits for its device. Who
// may not connect at all is not told that the id exists.
func (s *sessions) occupied(ctx context.Context, request broker.ConnectRequest) error {
	request.ClientID, request.Kick = "", nil
	probe, _, err := s.broker.Connect(ctx, &request)
	if err != nil {
		return refusal(err, &request.Credentials)
	}
	probe.Close(broker.Closing{KeepWill: true})
	f := refuse(broker.InvalidClientID, "the client id belongs to a client of another protocol; choose another one")
	f.status = http.StatusConflict
	return f
}

// refusal is the answer for a failed Connect. A client that showed no
// credentials is asked for them.
func refusal(err error, c *broker.Credentials) error {
	r := broker.ReasonOf(err)
	f := refuse(r, "the client may not connect: %s", r)
	if r == broker.NotAuthorized && !c.HasUsername {
		f.status = http.StatusUnauthorized
	}
	return f
}

// release gives up one use of a session.
func (s *sessions) release(e *entry) {
	s.mu.Lock()
	e.refs--
	last := e.refs == 0
	if last && !e.lost {
		e.since = time.Now()
		e.place = s.unused.PushBack(e)
	}
	end := last && e.lost
	s.mu.Unlock()
	if end {
		e.close(broker.Success)
	}
}

// kicked is called by the broker, which wants the session gone: it must not
// block, so the janitor closes it.
func (s *sessions) kicked(e *entry, r broker.Reason) {
	s.mu.Lock()
	s.lose(e)
	s.mu.Unlock()
	s.log.Debug("session ended by the broker", "client", e.key.clientID, "reason", r)
}

// discard takes a session out of use that has answered Closed.
func (s *sessions) discard(e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lose(e)
}

// lose takes an entry out of use. Requests that have it finish with it. Caller
// holds mu.
func (s *sessions) lose(e *entry) {
	if e.lost {
		return
	}
	s.forget(e)
	if e.refs > 0 {
		return
	}
	s.ended = append(s.ended, e)
	select {
	case s.nudge <- struct{}{}:
	default:
	}
}

// forget makes e unknown. Caller holds mu.
func (s *sessions) forget(e *entry) {
	e.lost = true
	s.used(e)
	if s.byID[e.key.clientID] == e {
		delete(s.byID, e.key.clientID)
	}
}

// used takes e from the unused ones. Caller holds mu.
func (s *sessions) used(e *entry) {
	if e.place != nil {
		s.unused.Remove(e.place)
		e.place = nil
	}
}

func (s *sessions) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.byID)
}

// run ends sessions that are not used any more, until ctx ends.
func (s *sessions) run(ctx context.Context) {
	tick := time.NewTicker(max(s.idle/4, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-s.nudge:
		}
		for _, e := range s.takeEnded(time.Now().Add(-s.idle)) {
			e.close(broker.Success)
		}
	}
}

// takeEnded returns the lost entries, and those unused since before a time.
func (s *sessions) takeEnded(before time.Time) []*entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	for front := s.unused.Front(); front != nil; front = s.unused.Front() {
		e := front.Value.(*entry)
		if e.since.After(before) {
			break
		}
		s.lose(e)
	}
	ended := s.ended
	s.ended = nil
	return ended
}

// close ends all sessions. No request may be using one any more.
func (s *sessions) close() {
	s.mu.Lock()
	s.closed = true
	all := s.ended
	for _, e := range s.byID {
		all = append(all, e)
		e.lost = true
	}
	s.ended = nil
	clear(s.byID)
	s.unused.Init()
	s.mu.Unlock()
	for _, e := range all {
		e.close(broker.ShuttingDown)
	}
}

// close ends the session; harmless when the broker has taken it away.
func (e *entry) close(r broker.Reason) {
	if e.session != nil {
		e.session.Close(broker.Closing{Reason: r, KeepWill: true})
	}
}
