package broker

import (
	"context"
	"crypto/rand"
	"errors"
	"time"
)

// maxClientIDBytes bounds what listings, logs and disk keys must carry.
const maxClientIDBytes = 512

// Connect authenticates a client and opens its session: a new one, or the one
// that was kept for its client identifier (present). If another connection
// owns that session, it is detached first and its Kick is called with
// TakenOver; from then on only the new handle can act on the session. A CoAP or
// HTTP client cannot take over the session of a client of another protocol.
//
// Connect waits until a session that must survive a restart is on disk; for
// one with Expiry 0 and no will it does not wait. A kept session is resumed even
// if the store cannot take note of it: on a disk that its queue has filled, its
// client must be able to come and empty it. The error is an *Error with
// the Reason for the peer. The outbox stays shut until Start.
func (b *Broker) Connect(ctx context.Context, r *ConnectRequest) (s *Session, present bool, err error) {
	if b.closing.Load() {
		return nil, false, &Error{Reason: ShuttingDown}
	}
	if err := b.checkRequest(r); err != nil {
		return nil, false, err
	}
	if b.cfg.Authenticate == nil {
		return nil, false, &Error{Reason: NotAuthorized, Err: errors.New("no authenticator")}
	}
	if err := b.cfg.Authenticate.Authenticate(ctx, r); err != nil {
		b.stats.refusedConnects.Add(1)
		return nil, false, err
	}
	if s, err = b.newHandle(r); err != nil {
		b.stats.refusedConnects.Add(1)
		return nil, false, err
	}
	wait, present, err := b.open(ctx, s, r)
	if err != nil {
		return nil, false, err
	}
	if wait == nil {
		s.autoSubscribe()
		return s, present, nil
	}
	select {
	case err = <-wait:
	case <-ctx.Done():
		err = ctx.Err()
	}
	kept := s.state.noteStored(err)
	if err != nil && kept && ctx.Err() == nil {
		b.spawn(func() { b.saveLater(s) })
		s.autoSubscribe()
		return s, present, nil
	}
	if err != nil {
		s.Close(Closing{Reason: ServerUnavailable, KeepWill: true})
		return nil, false, &Error{Reason: ServerUnavailable, Err: err}
	}
	s.autoSubscribe()
	return s, present, nil
}

func (b *Broker) checkRequest(r *ConnectRequest) error {
	if len(r.ClientID) > maxClientIDBytes {
		return &Error{Reason: InvalidClientID, Err: errors.New("client identifier is too long")}
	}
	if r.ClientID != "" && validText(r.ClientID) != nil {
		return &Error{Reason: InvalidClientID, Err: errors.New("client identifier is not clean UTF-8")}
	}
	if r.Will != nil {
		return b.checkWill(r.Will.Message, r.Mountpoint != nil)
	}
	return nil
}

func (b *Broker) checkWill(m *Message, mounted bool) error {
	topic, _, err := splitDelayed(m.Topic)
	if err == nil {
		err = ValidTopic(topic)
	}
	if err == nil && IsExclusive(topic) {
		err = errFilterMixed
	}
	if err != nil {
		return &Error{Reason: InvalidTopic, Err: err}
	}
	if topic != m.Topic && b.cfg.Delayed.MaxMessages < 0 {
		return &Error{Reason: ImplementationError, Err: errors.New("nothing can be published later here")}
	}
	if isSys(topic) && !mounted {
		return &Error{Reason: NotAuthorized, Err: errors.New("will topic belongs to the broker")}
	}
	if m.QoS > 2 {
		return &Error{Reason: QoSNotSupported, Err: errors.New("will has no valid QoS")}
	}
	return nil
}

// namesInPassing reports whether a protocol names its client with each message.
// One request over HTTP, or datagram of CoAP, must not be enough to end the
// session of a client of another protocol, with what waits there for it.
func namesInPassing(protocol string) bool { return protocol == "coap" || protocol == "http" }

var errOtherProtocol = errors.New("the client identifier belongs to a client of another protocol")

// belongsTo reports whether the session's client speaks a protocol.
func (st *sessionState) belongsTo(protocol string) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.protocol == protocol
}

// newHandle also gives the will the topic under which the broker knows it.
func (b *Broker) newHandle(r *ConnectRequest) (*Session, error) {
	if r.ClientID == "" {
		r.ClientID = "auto-" + rand.Text()
	}
	names, err := b.newNames(r)
	if err != nil {
		return nil, err
	}
	limit := b.cfg.Session.Inflight
	if r.ReceiveMaximum != 0 {
		limit = min(limit, int(r.ReceiveMaximum))
	}
	s := &Session{
		broker: b, clientID: r.ClientID, username: r.Credentials.Username, protocol: r.Protocol, version: r.Version,
		listener: r.Listener, keepAlive: r.KeepAlive, connectedAt: time.Now(),
		receiveMaximum: limit, memoryBytes: r.MemoryBytes, wake: r.Wake, kick: r.Kick, cleanStart: r.CleanStart,
		names:   names,
		traffic: b.trafficOf(r.ClientID),
	}
	s.Moved(r.RemoteAddr)
	s.expiry.Store(int64(min(r.Expiry, b.cfg.Session.MaxExpiry)))
	if w := r.Will; w != nil {
		w.Message.ClientID, w.Message.Username, w.Message.Protocol = r.ClientID, r.Credentials.Username, r.Protocol
		words, real := delayedWords(w.Message.Topic)
		topic, reason := names.topic(real)
		if reason != Success {
			return nil, &Error{Reason: reason, Err: errors.New("will topic cannot be used below this mountpoint or by the rewrite rules")}
		}
		w.Message.Topic = words + topic
	}
	return s, nil
}

// open gives the session of the client to s. A channel is returned when the
// caller must wait for the disk.
func (b *Broker) open(ctx context.Context, s *Session, r *ConnectRequest) (wait chan error, present bool, err error) {
	defer b.lockLife(s.clientID).Unlock()
	old := b.find(s.clientID)
	durable := s.Expiry() > 0
	if old != nil && namesInPassing(s.protocol) && !old.belongsTo(s.protocol) {
		return nil, false, &Error{Reason: InvalidClientID, Err: errOtherProtocol}
	}
	if durable && !b.takePlace(old) {
		return nil, false, &Error{Reason: QuotaExceeded, Err: errTooManyKept}
	}
	if old != nil {
		// A session belongs to its mountpoint: what it holds is not for a client
		// that sees other topics.
		clean := r.CleanStart || old.mount != s.names.mountpoint()
		if present, err = b.vacate(old, clean); err != nil {
			return nil, false, err
		}
	}
	st := old
	if !present {
		st = &sessionState{broker: b, id: s.clientID, mount: s.names.mountpoint(), durable: durable}
	}
	s.state = st
	b.mu.Lock()
	if st != old {
		st.nextSeq = b.firstSeq()
	}
	b.sessions[s.clientID] = st
	st.leftPlace = false
	b.mu.Unlock()
	rec := st.attach(s, r.Will)
	b.stats.connects.Add(1)
	if present {
		b.stats.resumed.Add(1)
	}
	s.tell(true, Success)
	if rec == nil {
		return nil, present, nil
	}
	wait = make(chan error, 1)
	batch := Batch{Ops: []Op{{Kind: OpPutSession, ClientID: st.id, Session: rec}}}
	if err := b.commit(ctx, &batch, func(err error) { wait <- err }); err != nil {
		wait <- err
	}
	return wait, present, nil
}

// firstSeq is where a new session begins to number: above everything that a
// session which has ended may still be spoken of with, so that a late word
// to the store about one of them cannot mean a message of the next session of
// the same client. It gives packet identifier 1. Caller holds mu.
func (b *Broker) firstSeq() uint64 {
	if b.usedSeq == 0 {
		return 1
	}
	return (b.usedSeq-1)/packetIDs*packetIDs + packetIDs + 1
}

// vacate makes an existing session free for a new owner and reports whether
// it can be resumed. Caller holds life.
func (b *Broker) vacate(old *sessionState, cleanStart bool) (resumable bool, err error) {
	old.mu.Lock()
	owner := old.owner
	if owner != nil {
		old.detachOwner()
	}
	resumable = !cleanStart && !old.dead && old.expiry > 0
	old.stopTimers()
	will := old.will
	if owner == nil && (will == nil || resumable || old.expiry == 0) {
		will = nil // the client is back in time [MQTT-3.1.3-9]
	}
	if resumable && will != nil && will.Delay > 0 {
		will = nil
	}
	old.will = nil
	old.mu.Unlock()
	if owner != nil {
		b.stats.takeovers.Add(1)
		owner.tell(false, TakenOver)
		owner.kickOut(TakenOver)
	}
	if will != nil {
		b.publishWill(will)
	}
	if !resumable {
		b.stats.discarded.Add(1)
		b.end(old)
	}
	return resumable, nil
}

// attach makes s the owner and returns the record to store, nil when the
// session need not survive a restart.
func (st *sessionState) attach(s *Session, will *Will) *SessionRecord {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.owner, st.started, st.idle = s, false, false
	st.epoch++
	st.username, st.protocol = s.username, s.protocol
	st.expiry, st.will, st.detached = s.Expiry(), will, 0
	st.resend, st.inFlight = 0, 0
	for i := range st.window.entries() {
		st.window.at(i).counted = false
	}
	if !st.durable && will == nil && !st.stored {
		return nil
	}
	st.stored = true
	return st.record()
}

// record is the session's own state for the store. Caller holds mu.
func (st *sessionState) record() *SessionRecord {
	return &SessionRecord{
		ClientID: st.id, Username: st.username, Protocol: st.protocol, Expiry: st.expiry,
		DetachedAt: st.detached, NextSeq: st.nextSeq, Will: st.will, Mount: st.mount,
	}
}

// detachOwner takes the session from its connection. Caller holds mu.
func (st *sessionState) detachOwner() {
	st.owner.gone.Store(true)
	st.owner, st.started, st.idle = nil, false, false
	kept := fifo{}
	for _, e := range st.queue.entries() {
		if e.qos == 0 {
			st.forget(&e)
			st.broker.stats.drop(DropDisconnected)
			continue
		}
		kept.push(e)
	}
	st.queue = kept
}

func (st *sessionState) stopTimers() {
	for _, t := range []*time.Timer{st.expiring, st.willing} {
		if t != nil {
			t.Stop()
		}
	}
	st.expiring, st.willing = nil, nil
}

// Closing says how a connection ended.
type Closing struct {
	Reason Reason
	// KeepWill means that the will is deleted, not published: the client said
	// goodbye [MQTT-3.14.4-3].
	KeepWill bool
	// Expiry, if set, replaces how long the session outlives the connection;
	// the broker's cap applies. It cannot prolong a session that was opened
	// with Expiry 0 [MQTT-3.14.2.2.2].
	Expiry *time.Duration
}

// Close detaches the connection. The session ends now or after its expiry; a
// will is published unless KeepWill, after its delay. When the reason is
// ShuttingDown, a will waits for the client to come back to the next process.
// Close is idempotent, and harmless when another connection owns the session
// by now. It waits for the store, so it must not be called from a done callback.
func (s *Session) Close(c Closing) {
	if s.gone.Load() {
		return
	}
	b, st := s.broker, s.state
	defer b.lockLife(s.clientID).Unlock()
	st.mu.Lock()
	if st.owner != s {
		st.mu.Unlock()
		return
	}
	st.detachOwner()
	if c.Expiry != nil && st.expiry > 0 {
		st.expiry = min(*c.Expiry, b.cfg.Session.MaxExpiry)
	}
	st.detached = nowMillis()
	if c.KeepWill {
		st.will = nil
	}
	b.stats.disconnects.Add(1)
	defer s.tell(false, c.Reason)
	if c.Reason == ShuttingDown && st.stored {
		// The record keeps will and expiry; the next process goes on with them,
		// or this one if only a listener went away.
		b.resumeTimers(st, st.detached)
		rec := st.record()
		st.mu.Unlock()
		b.save(st, rec)
		return
	}
	b.leave(st)
}

// leave decides what becomes of a detached session. Caller holds life and mu;
// mu is unlocked on return.
func (b *Broker) leave(st *sessionState) {
	will := st.will
	lives := st.expiry > 0
	if will != nil && will.Delay > 0 && lives {
		st.startWill(min(will.Delay, st.expiry))
		will = nil
	}
	if will != nil {
		st.will = nil
	}
	var rec *SessionRecord
	var shared []string
	if lives {
		if st.expiry != NeverExpires {
			st.startExpiry(st.expiry)
		}
		st.stored = true
		rec = st.record()
		shared = st.sharedQueued()
	}
	st.mu.Unlock()
	if will != nil {
		b.publishWill(will)
	}
	if !lives {
		b.end(st)
		return
	}
	b.save(st, rec)
	st.passOn(shared, fitQueued) // those who are here need not wait for its return
}

// startExpiry ends the session after a time, unless its client comes back.
// Caller holds mu.
func (st *sessionState) startExpiry(after time.Duration) {
	b, epoch := st.broker, st.epoch
	st.expiring = time.AfterFunc(after, func() { b.spawn(func() { b.expired(st, epoch) }) })
}

// startWill publishes the will after a time, unless its client comes back.
// Caller holds mu.
func (st *sessionState) startWill(after time.Duration) {
	b, epoch := st.broker, st.epoch
	st.willing = time.AfterFunc(after, func() { b.spawn(func() { b.willDue(st, epoch) }) })
}

// expired ends a session whose time is over, unless its client came back.
func (b *Broker) expired(st *sessionState, epoch uint64) {
	defer b.lockLife(st.id).Unlock()
	st.mu.Lock()
	if st.owner != nil || st.dead || st.epoch != epoch {
		st.mu.Unlock()
		return
	}
	will := st.will
	st.will = nil
	st.stopTimers()
	st.mu.Unlock()
	if will != nil { // the session ends before the delay did [MQTT-3.1.3-9]
		b.publishWill(will)
	}
	b.stats.expiredSessions.Add(1)
	b.end(st)
}

// end removes a session with everything that belongs to it. Caller holds
// life, and nobody owns the session.
func (b *Broker) end(st *sessionState) {
	st.mu.Lock()
	if st.dead {
		st.mu.Unlock()
		return
	}
	st.dead = true
	b.stats.ended.Add(1)
	st.stopTimers()
	filters := make([]string, 0, len(st.subs))
	for f := range st.subs {
		filters = append(filters, f)
	}
	left := st.estate()
	st.subs, st.inbound = nil, nil
	st.queue.clear()
	st.window.clear()
	st.spill, st.memory, st.bytes, st.owed = spill{}, 0, 0, nil
	st.awaitHandover()
	stored, used := st.stored, st.nextSeq-1
	st.mu.Unlock()

	b.mu.Lock()
	if b.sessions[st.id] == st {
		delete(b.sessions, st.id)
	}
	if st.durable {
		b.usedSeq = max(b.usedSeq, used)
		b.freePlace(st)
	}
	b.mu.Unlock()
	for _, f := range filters {
		b.router.remove(st, f)
	}
	b.inherit(st, left)
	if stored {
		batch := Batch{Ops: []Op{{Kind: OpDeleteSession, ClientID: st.id}}}
		_ = b.commit(b.ctx, &batch, nil)
	}
	b.exclusive.freeAll(st)
}

// unconfirmed counts the messages that the session holds and that its client
// has not confirmed. Caller holds mu.
func (st *sessionState) unconfirmed() int {
	n := st.queue.len() + st.spill.count
	for i := range st.window.entries() {
		if st.window.at(i).msg != nil {
			n++
		}
	}
	return n
}

// Kick asks the adapter of a client to disconnect it. It reports whether the
// client is connected.
func (b *Broker) Kick(clientID string, r Reason) bool {
	st := b.find(clientID)
	if st == nil {
		return false
	}
	st.mu.Lock()
	owner := st.owner
	st.mu.Unlock()
	if owner == nil {
		return false
	}
	owner.kickOut(r)
	return true
}

func (s *Session) kickOut(r Reason) {
	if s.kick != nil {
		s.kick(r)
	}
}
