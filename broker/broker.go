package broker

import (
	"context"
	"errors"
	"hash/maphash"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// NoWait as the context of a call that may block for back-pressure means that
// the caller serves many peers and must not be blocked: the callee answers
// ServerBusy (or ErrBusy) instead. It is the nil context.
var NoWait context.Context

// NeverExpires is the session expiry of a session that ends only on request.
const NeverExpires = time.Duration(math.MaxInt64)

// FullPolicy says what happens when a durable session's queue is at its cap.
type FullPolicy string

// The policies of a full session queue.
const (
	// RefuseNewest gives the publisher a negative acknowledgement, so that
	// nothing acknowledged is lost.
	RefuseNewest FullPolicy = "refuse"
	// DropOldest takes the oldest waiting message out, counted.
	DropOldest FullPolicy = "drop_oldest"
)

// Config holds the limits of the core. The zero value of each field means its
// default.
type Config struct {
	Session  SessionConfig
	Retained RetainedConfig
	Delayed  DelayedConfig
	// ShareStrategy chooses the member of a shared subscription. Default
	// ShareRoundRobin.
	ShareStrategy ShareStrategy

	// Rewrite changes topics and filters of clients. Default none.
	Rewrite []RewriteRule

	// AutoSubscribe are subscriptions that MQTT clients get without asking.
	// Default none.
	AutoSubscribe []AutoSubscription

	// Hooks is the hook stage, in order.
	Hooks []Hook
	// Authenticate decides who a client is; nil refuses everybody.
	Authenticate Authenticator
	// OnConnection is told of every connection that got or lost a session, in
	// order for each client identifier. It must not block, nor call Connect or
	// Session.Close. nil is fine.
	OnConnection func(ConnectionEvent)
	// OnSubscription is told of every subscription that a client made or ended
	// by a request, once it is durable; not of those that end with a session. It
	// must not block. nil is fine.
	OnSubscription func(SubscriptionEvent)
}

// SessionConfig holds the limits of one session.
type SessionConfig struct {
	// MaxExpiry caps how long a session outlives its connection. Default 24 h:
	// a device that was away for longer is taken to be gone.
	MaxExpiry time.Duration
	// MaxKept caps the sessions that outlive their connection, those with one
	// included. A client that would be one more is refused with QuotaExceeded;
	// what was kept before is resumed whatever the cap. Default 100,000.
	MaxKept int
	// QueueBytes caps the QoS 1 and 2 messages that a durable session holds,
	// on disk. Default 64 MiB.
	QueueBytes int64
	// WhenFull is what happens at that cap. Default RefuseNewest.
	WhenFull FullPolicy
	// Inflight caps the deliveries that a client has not completed, beside its
	// own Receive Maximum. Default 64: more only helps on links where
	// bandwidth times delay exceeds 64 messages.
	Inflight int
	// MemoryBytes caps what a session holds in memory. The rest of a durable
	// queue is read back from the store; QoS 0 and the queue of a session that
	// is not durable lose their oldest messages, counted. Default 8 MiB.
	MemoryBytes int
}

func (c *Config) setDefaults() {
	if c.ShareStrategy == "" {
		c.ShareStrategy = ShareRoundRobin
	}
	c.Retained.setDefaults()
	c.Delayed.setDefaults()
	s := &c.Session
	if s.MaxExpiry == 0 {
		s.MaxExpiry = 24 * time.Hour
	}
	if s.MaxKept == 0 {
		s.MaxKept = 100_000
	}
	if s.QueueBytes == 0 {
		s.QueueBytes = 64 << 20
	}
	if s.WhenFull == "" {
		s.WhenFull = RefuseNewest
	}
	if s.Inflight == 0 {
		s.Inflight = 64
	}
	if s.MemoryBytes == 0 {
		s.MemoryBytes = 8 << 20
	}
}

// Authenticator decides who a client is. It may block until ctx ends; an
// adapter that must not be blocked only uses authenticators that do not.
type Authenticator interface {
	// Authenticate returns nil, or an *Error with the Reason for the peer.
	Authenticate(ctx context.Context, r *ConnectRequest) error
}

// Broker is the core. Its methods are safe for concurrent use.
type Broker struct {
	cfg   Config
	log   *slog.Logger
	store Store
	noted func(error) // noteCommit
	stats counters

	traffic [trafficShards]traffic

	storeLogged atomic.Int64 // when a batch that failed was logged last, Unix milliseconds

	rewriter  *rewriter // of Config.Rewrite; nil when there are no rules
	automatic []autoSubscription
	rewriters []Rewriter
	recorders []Recorder

	router    router
	exclusive holders
	delayed   delayedQueue
	retained  *retained
	expiries  expiries  // of the retained values
	system    *retained // the broker's own values, below $SYS

	mu       sync.Mutex // covers sessions, kept, usedSeq, and closing against tasks
	sessions map[string]*sessionState
	kept     int    // sessions that outlive their connection
	usedSeq  uint64 // highest sequence number of the durable sessions that have ended
	// life makes opening, detaching and ending sessions of one client id one
	// step each, store included. Taken before mu and before any session's mu.
	life [64]sync.Mutex
	seed maphash.Seed

	closing atomic.Bool
	ctx     context.Context // ends at Close; bounds what the broker does on its own
	cancel  context.CancelFunc
	tasks   sync.WaitGroup
}

// New builds the core and loads the state of the store. Sessions that were
// attached when the last process ended are detached now; a will among them is
// published unless its client comes back within a grace of a few seconds. The
// caller closes the store after the broker.
func New(ctx context.Context, cfg Config, store Store, log *slog.Logger, reg prometheus.Registerer) (*Broker, error) {
	cfg.setDefaults()
	if store == nil {
		return nil, errors.New("broker needs a store")
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	rules, errRules := newRewriter(cfg.Rewrite)
	automatic, errAuto := newAutoSubscriptions(cfg.AutoSubscribe)
	if err := errors.Join(errRules, errAuto); err != nil {
		return nil, err
	}
	b := &Broker{
		cfg: cfg, log: log, store: store, rewriter: rules, automatic: automatic,
		retained: newRetained(), delayed: newDelayedQueue(), system: newRetained(), sessions: make(map[string]*sessionState), seed: maphash.MakeSeed(),
	}
	b.noted = b.noteCommit
	b.ctx, b.cancel = context.WithCancel(context.WithoutCancel(ctx))
	for _, h := range cfg.Hooks {
		if r, ok := h.(Rewriter); ok {
			b.rewriters = append(b.rewriters, r)
		}
		if r, ok := h.(Recorder); ok {
			b.recorders = append(b.recorders, r)
		}
	}
	if err := b.load(ctx); err != nil {
		return nil, err
	}
	if reg != nil {
		if err := reg.Register(&collector{b}); err != nil {
			return nil, errors.Join(err, b.Close())
		}
	}
	return b, nil
}

// Close ends what the broker does on its own: timers, wills on their way. The
// adapters must be closed before, the store after it. Safe to call twice.
func (b *Broker) Close() error {
	b.mu.Lock()
	if b.closing.Swap(true) {
		b.mu.Unlock()
		return nil
	}
	all := make([]*sessionState, 0, len(b.sessions))
	for _, s := range b.sessions {
		all = append(all, s)
	}
	b.mu.Unlock()
	for _, s := range all {
		s.mu.Lock()
		s.stopTimers()
		s.mu.Unlock()
	}
	b.expiries.stop()
	b.delayed.close()
	b.cancel()
	b.tasks.Wait()
	return nil
}

// spawn runs f in a goroutine that Close waits for; after Close it does
// nothing and returns false. Must be called without mu.
func (b *Broker) spawn(f func()) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closing.Load() {
		return false
	}
	b.tasks.Go(f)
	return true
}

func (b *Broker) lockLife(clientID string) *sync.Mutex {
	mu := &b.life[maphash.String(b.seed, clientID)%uint64(len(b.life))]
	mu.Lock()
	return mu
}

func (b *Broker) find(clientID string) *sessionState {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sessions[clientID]
}

// commit hands a batch to the store and logs what it refuses: a change that
// nobody waits for must not be lost silently.
func (b *Broker) commit(ctx context.Context, batch *Batch, done func(error)) error {
	noted := b.noted
	if done != nil {
		noted = func(err error) {
			b.noteCommit(err)
			done(err)
		}
	}
	err := b.store.Commit(ctx, batch, noted)
	if err != nil {
		b.refusedBatch(err)
	}
	return err
}

// storeLogEvery bounds how often failed batches are logged: on a full disk
// every message of every client fails, and the log may lie on that disk.
const storeLogEvery = 10 * time.Second

// noteCommit counts and logs the outcome of a batch that was appended.
func (b *Broker) noteCommit(err error) {
	if err == nil {
		return
	}
	failed := b.stats.storeErrors.Add(1)
	now, last := nowMillis(), b.storeLogged.Load()
	recent := now >= last && now-last < storeLogEvery.Milliseconds() // the clock may go back
	if !recent && b.storeLogged.CompareAndSwap(last, now) {
		b.log.Error("store commit, its publisher is told; more of them are only counted", "err", err, "failed", failed, "for", storeLogEvery)
	}
}

// refusedBatch counts and logs a batch that the store did not take.
func (b *Broker) refusedBatch(err error) {
	b.stats.storeErrors.Add(1)
	b.log.Debug("store refused a batch", "err", err)
}

// commitSoon hands over a batch that nobody waits for. It does not block: when
// the store is busy, a goroutine of the broker waits in its place.
func (b *Broker) commitSoon(batch Batch) {
	if b.commit(NoWait, &batch, nil) != nil {
		b.spawn(func() { _ = b.commit(b.ctx, &batch, nil) })
	}
}

func nowMillis() int64 { return time.Now().UnixMilli() }

// storeReason is the answer to a publisher whose message the store refused.
func storeReason(err error) Reason {
	switch {
	case err == nil:
		return Success
	case errors.Is(err, ErrBusy), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return ServerBusy
	}
	if r := ReasonOf(err); r != Unspecified {
		return r
	}
	return ServerUnavailable // the disk's trouble: the client may try again
}
