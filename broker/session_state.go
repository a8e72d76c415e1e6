package broker

import (
	"slices"
	"sync"
	"time"
)

// sessionState is one session, attached or not. Session is the handle that
// one connection has on it.
type sessionState struct {
	broker *Broker
	id     string
	mount  string // mountpoint of its topics; never changes
	// durable says that the session outlives a connection, so that what it is
	// to receive is kept in the store. It never changes: a session that is
	// resumed for the last time stays in the store until its end.
	durable bool
	// leftPlace says that the next session of the client has its place among
	// those that are kept. Covered by mu of the broker.
	leftPlace bool

	mu       sync.Mutex // covers everything below; never held over Store.Commit that may block, or a callback
	owner    *Session   // nil while no connection is attached
	dead     bool       // ended: nothing may be queued any more
	username string
	protocol string
	expiry   time.Duration
	stored   bool // the store has a record of it, or will have
	onDisk   bool // it surely has one: a restart finds the session, as it is or as it was
	detached int64
	will     *Will
	epoch    uint64 // counts owners, so that a timer of an earlier absence does nothing
	expiring *time.Timer
	willing  *time.Timer

	subs    map[string]*subscription
	sharing bool                // it may hold messages of shared subscriptions
	inbound map[uint16]*inbound // QoS 2 publishes of the client without PUBREL

	queue    fifo          // waiting, in order
	window   fifo          // sent and not completed, in order
	resend   int           // entries of the window before it went out on this connection
	inFlight int           // of them, those that hold a place of the receive maximum
	holds    int           // Subscribe calls that still wait for the disk
	handing  int           // batches beside those of reserved that name the session and are not with the store yet
	drained  chan struct{} // closed when the last of them is, if somebody waits
	started  bool          // CONNACK is on its way
	idle     bool          // Next returned nothing, so the next change must wake the adapter
	nextSeq  uint64        // the next sequence number to give
	pushed   uint64        // the highest that was queued
	reserved []uint64      // given, but not queued yet; ascending
	sentMark uint64        // highest that may have been sent in an earlier life
	memory   int           // bytes of queue and window
	bytes    int64         // bytes of all QoS>0 entries, spilled ones included
	spill    spill
	loading  bool     // a page of the spilled tail is being read
	changed  bool     // something happened meanwhile that Next has to look at
	unsaved  []uint64 // spilled entries whose commit has not ended, ascending
	early    []uint64 // QoS 2 entries of the queue whose commit has not ended, ascending
	owed     []uint64 // completed, but the store was too busy to be told
	untold   []uint64 // of them, those whose commit failed, and when the last did
	untoldAt time.Time
}

// spill describes the tail of the queue that is only in the store: everything
// from sequence number from on, except what is reserved.
type spill struct {
	from  uint64
	count int
}

// inbound is one QoS 2 publish between PUBLISH and PUBREL.
type inbound struct {
	settled bool
	outcome Reason
	waiting []func(Reason) // duplicates that came before the outcome
	// unsure: the store knows it from an earlier life, which may have ended before
	// the recorders had it on disk. A duplicate is recorded again: its publisher
	// has not got the PUBREC of the first.
	unsure bool
}

// reserve gives the next sequence number; the entry follows by enqueue or the
// number is returned by abandon. Deliveries wait for reserved numbers, so
// that the outbox is in order. Caller holds mu.
func (s *sessionState) reserve() uint64 {
	seq := s.nextSeq
	s.nextSeq++
	s.reserved = append(s.reserved, seq)
	return seq
}

// abandon takes a number off the list of those that deliveries wait for.
// Caller holds mu.
func (s *sessionState) abandon(seq uint64) {
	s.reserved = without(s.reserved, seq)
	s.drain()
}

// handedOver ends what began with handing++: the batch is with the store.
func (s *sessionState) handedOver() {
	s.mu.Lock()
	s.handing--
	s.drain()
	s.mu.Unlock()
}

// drain lets the end of the session go on. Caller holds mu.
func (s *sessionState) drain() {
	if s.drained != nil && !s.underway() {
		close(s.drained)
		s.drained = nil
	}
}

// underway reports whether a batch that names the session is not with the
// store yet, or, where other members of shared subscriptions inherit from it,
// not readable there. Caller holds mu.
func (s *sessionState) underway() bool {
	return len(s.reserved) > 0 || s.handing > 0 || s.sharing && len(s.unsaved) > 0
}

// awaitHandover waits until every batch that names a dead session is with the
// store. What the store is told next then comes behind them. Caller holds mu,
// which is given up meanwhile.
func (s *sessionState) awaitHandover() {
	if !s.durable || !s.underway() {
		return
	}
	drained := make(chan struct{})
	s.drained = drained
	s.mu.Unlock()
	<-drained
	s.mu.Lock()
}

// with adds to an ascending list.
func with(list []uint64, seq uint64) []uint64 {
	at, _ := slices.BinarySearch(list, seq)
	return slices.Insert(list, at, seq)
}

// without takes seq out of an ascending list, usually from its beginning.
func without(list []uint64, seq uint64) []uint64 {
	if i, ok := slices.BinarySearch(list, seq); ok {
		list = slices.Delete(list, i, i+1)
	}
	if len(list) == 0 && cap(list) > fifoKeep {
		return nil
	}
	return list
}

// enqueue puts an entry into the queue, or leaves it to the store when the
// session holds enough in memory, and reports which. Caller holds mu.
func (s *sessionState) enqueue(e entry, inStore bool) (spilled bool) {
	if e.seq != 0 {
		s.abandon(e.seq)
		s.bytes += int64(e.size)
	}
	late := e.seq != 0 && e.seq < s.pushed
	s.pushed = max(s.pushed, e.seq)
	if inStore && s.spills(&e, late) {
		if s.spill.count == 0 {
			s.spill.from = e.seq
		}
		s.spill.count++
		return true
	}
	s.memory += e.cost()
	if late {
		s.queue.insert(e)
		return false
	}
	s.queue.push(e)
	return false
}

// memoryLimit is the cap of what the session holds in memory. Caller holds mu.
func (s *sessionState) memoryLimit() int {
	limit := s.broker.cfg.Session.MemoryBytes
	if s.owner != nil && s.owner.memoryBytes > 0 {
		return min(limit, s.owner.memoryBytes)
	}
	return limit
}

// spills decides whether an entry stays in the store: it belongs behind others
// that did, or the session holds enough in memory. Caller holds mu.
func (s *sessionState) spills(e *entry, late bool) bool {
	if s.spill.count > 0 {
		return e.seq >= s.spill.from
	}
	return !late && s.memory+e.cost() > s.memoryLimit()
}

// nudge returns the adapter's Wake when it has to be called: the outbox was
// idle and something can be sent now. Caller holds mu and calls it after
// unlocking.
func (s *sessionState) nudge() func() {
	s.changed = true
	if !s.idle || s.owner == nil || !s.sendable() {
		return nil
	}
	s.idle = false
	return s.owner.wake
}

func wakeUp(wake func()) {
	if wake != nil {
		wake()
	}
}

// sendable reports whether Next would return something. Caller holds mu.
func (s *sessionState) sendable() bool {
	if !s.started || s.holds > 0 {
		return false
	}
	if s.resend < s.window.len() {
		return s.window.at(s.resend).released || s.quota()
	}
	if s.queue.len() > 0 {
		front := s.queue.at(0)
		return front.seq == 0 || s.mayEnter(front)
	}
	return s.spill.count > 0 && !s.loading && s.quota()
}

func (s *sessionState) quota() bool { return s.owner != nil && s.inFlight < s.owner.receiveMaximum }

// mayEnter reports whether a QoS>0 entry may go into the window now: its
// predecessors are there, the peer has room, and the identifier is free.
func (s *sessionState) mayEnter(e *entry) bool {
	if len(s.reserved) > 0 && s.reserved[0] < e.seq {
		return false
	}
	if s.window.len() > 0 && e.seq-s.window.at(0).seq >= packetIDs {
		return false
	}
	// What is sent and then lost in a crash comes again under another sequence
	// number, and its identifier may be given to another message: with QoS 2 the
	// receiver would take the one twice and the other for a duplicate.
	if _, early := slices.BinarySearch(s.early, e.seq); early && e.qos == 2 {
		return false
	}
	return e.released || s.quota()
}

// complete takes the i-th entry out of the window and returns what the store
// must be told, 0 for nothing. Caller holds mu.
func (s *sessionState) complete(i int) (seq uint64) {
	e := s.window.at(i)
	seq = e.seq
	s.memory -= e.cost()
	s.bytes -= int64(e.size)
	if e.counted {
		s.inFlight--
	}
	e.done, e.counted, e.msg = true, false, nil
	for s.window.len() > 0 && s.window.at(0).done {
		s.window.pop()
		s.resend = max(0, s.resend-1)
	}
	if s.window.len() == 0 && s.queue.len() == 0 && s.spill.count == 0 {
		s.bytes, s.memory = 0, 0
	}
	if !s.durable {
		return 0
	}
	return seq
}

// forget drops a waiting entry. Caller holds mu.
func (s *sessionState) forget(e *entry) {
	s.memory -= e.cost()
	if e.seq != 0 {
		s.bytes -= int64(e.size)
	}
}

// settleBatch bounds what is handed to the store again after it was busy.
const settleBatch = 256

// settle tells the store which entries are completed. A store that is busy is
// told with the next one. Must be called without mu.
func (s *sessionState) settle(seqs ...uint64) {
	s.mu.Lock()
	if len(s.untold) > 0 && time.Since(s.untoldAt) >= untoldRetry {
		s.owed, s.untold = append(s.owed, s.untold...), nil
	}
	owing := len(s.owed) > 0
	s.mu.Unlock()
	if !owing && s.tell(seqs) {
		return
	}
	s.mu.Lock()
	s.owed = append(s.owed, seqs...)
	s.mu.Unlock()
	for owing {
		owing = s.payOwed()
	}
}

// payOwed tells the store of some that it was too busy for, and reports
// whether there may be more to tell now.
func (s *sessionState) payOwed() bool {
	s.mu.Lock()
	n := min(len(s.owed), settleBatch)
	seqs := s.owed[:n:n]
	if s.owed = s.owed[n:]; len(s.owed) == 0 {
		s.owed = nil
	}
	s.mu.Unlock()
	if n == 0 {
		return false
	}
	if s.tell(seqs) {
		return true
	}
	s.mu.Lock()
	s.owed = append(s.owed, seqs...)
	s.mu.Unlock()
	return false
}

// untoldRetry is how long completions whose commit failed wait before the
// store is told again: a failing disk must not be asked in a loop.
const untoldRetry = time.Second

// tell reports whether the store took note. What it could not write after all
// is told again later.
func (s *sessionState) tell(seqs []uint64) bool {
	err := s.broker.commit(NoWait, &Batch{Ops: s.dequeues(seqs)}, func(err error) {
		if err == nil {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.dead {
			s.untold, s.untoldAt = append(s.untold, seqs...), time.Now()
		}
	})
	return err == nil
}

func (s *sessionState) dequeues(seqs []uint64) []Op {
	ops := make([]Op, 0, len(seqs))
	for _, seq := range seqs {
		ops = append(ops, Op{Kind: OpDequeue, ClientID: s.id, Seq: seq})
	}
	return ops
}
