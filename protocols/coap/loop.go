package coap

import (
	"container/list"
	"context"
	"errors"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
)

// loop serves one socket and the peers that the system hashes to it.
type loop struct {
	cfg      *Config
	log      *slog.Logger
	core     connector
	metrics  *metrics
	sock     *socket
	echo     *echoGate
	maxPeers int
	peerIdle time.Duration
	base     time.Time
	ctx      context.Context // for Connect, which does not block for our sessions
	closed   chan struct{}   // closed before the socket is

	events events

	mu       sync.Mutex    // covers everything below
	now      time.Duration // since base; set when a turn begins
	peers    map[netip.AddrPort]*peer
	lru      list.List // peers that may be forgotten, the latest first
	sweep    timer
	acks     ackQueue
	timers   timers
	armed    time.Duration // when the worker will look at the timers by itself
	out      *outbox
	enc      encoder
	pkt      packet
	req      request
	current  *exchange // the request that is being handled
	pending  int       // exchanges that wait for the broker
	uploaded int       // bytes of memory that uploads hold
	draining bool
	drained  chan struct{} // closed when draining and nothing is pending
}

const never = time.Duration(math.MaxInt64)

func newLoop(cfg *Config, core connector, sock *socket, echo *echoGate, m *metrics, log *slog.Logger) *loop {
	l := &loop{
		cfg: cfg, log: log, core: core, metrics: m, sock: sock, echo: echo,
		maxPeers: max(1, cfg.MaxPeers/cfg.Loops), peerIdle: max(cfg.SessionIdle, exchangeLifetime),
		base: time.Now(), ctx: context.Background(), closed: make(chan struct{}),
		peers: make(map[netip.AddrPort]*peer), armed: never, drained: make(chan struct{}),
	}
	l.events.nudge = make(chan struct{}, 1)
	l.sweep.fire = l.sweepPeers
	l.out = newOutbox(sock.batch, func(err error) {
		m.drop(dropSend)
		log.Debug("send coap datagram, dropped", "err", err)
	})
	return l
}

// read takes datagrams from the socket until it is closed.
func (l *loop) read() {
	for {
		n, err := l.sock.read()
		switch {
		case err == nil:
			l.receive(n)
		case errors.Is(err, net.ErrClosed):
			return
		default:
			l.log.Debug("read coap socket, trying again", "err", err)
			l.pause()
		}
	}
}

// pause keeps a socket that only reports errors from taking the processor.
func (l *loop) pause() {
	const readRetry = 10 * time.Millisecond
	select {
	case <-time.After(readRetry):
	case <-l.closed:
	}
}

func (l *loop) receive(n int) {
	l.turn(false, func() {
		l.metrics.received.Add(float64(n))
		for i := range n {
			d, ok := l.sock.datagram(i)
			if !ok {
				l.metrics.drop(dropAddress)
				continue
			}
			l.handleGuarded(&d)
		}
	})
}

// work serves timers and events until ctx ends.
func (l *loop) work(ctx context.Context) {
	alarm := time.NewTimer(time.Hour)
	defer alarm.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.events.nudge:
		case <-alarm.C:
		}
		alarm.Reset(l.tick())
	}
}

// tick runs what is due and returns the time until the next timer.
func (l *loop) tick() time.Duration {
	next := l.turn(true, l.runTimers)
	if next == never {
		return time.Hour
	}
	return max(0, next-time.Since(l.base))
}

// turn runs f under the mutex, then what the broker reports meanwhile, and
// sends what came of it. It returns the time of the next timer; if that is
// sooner than the worker knows, the worker is told.
func (l *loop) turn(worker bool, f func()) (next time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now = time.Since(l.base)
	l.events.begin()
	f()
	for taken := l.events.take(); taken != nil; taken = l.events.take() {
		for i := range taken {
			l.dispatchGuarded(&taken[i])
		}
		l.events.keep(taken)
	}
	l.out.flush()
	if l.draining && l.pending == 0 {
		l.signalDrained()
	}
	next = l.deadline()
	if worker || next < l.armed {
		l.armed = next
		if !worker {
			l.events.wake()
		}
	}
	return next
}

func (l *loop) signalDrained() {
	select {
	case <-l.drained:
	default:
		close(l.drained)
	}
}

// recovered, deferred, keeps a bug in the handling of one message from ending
// the process.
func (l *loop) recovered(what string) {
	if r := recover(); r != nil {
		l.metrics.drop(dropPanic)
		l.log.Error("BUG: panic in coap loop, message dropped", "in", what, "panic", r, "stack", string(debug.Stack()))
	}
}

func (l *loop) handleGuarded(d *datagram) {
	defer func() {
		if ex := l.current; ex != nil && !ex.done { // the client need not wait for a request that met a bug
			l.respond(ex, refusal(codes.InternalServerError, ""))
		}
	}()
	defer l.recovered("datagram")
	l.current = nil
	l.handle(d)
	l.current = nil
}

func (l *loop) dispatchGuarded(e *event) {
	defer l.recovered("event")
	l.dispatch(e)
}

func (l *loop) fireGuarded(t *timer) {
	defer l.recovered("timer")
	t.fire()
}

func (l *loop) runTimers() {
	for ex := l.acks.head; ex != nil && ex.at+l.cfg.EmptyAckAfter <= l.now; ex = l.acks.head {
		l.acks.remove(ex)
		ex.acked = true
		l.acknowledge(ex)
	}
	for t := l.timers.due(l.now); t != nil; t = l.timers.due(l.now) {
		l.fireGuarded(t)
	}
}

func (l *loop) deadline() time.Duration {
	d := never
	if len(l.timers) > 0 {
		d = l.timers[0].at
	}
	if ex := l.acks.head; ex != nil {
		d = min(d, ex.at+l.cfg.EmptyAckAfter)
	}
	return d
}

func (l *loop) dispatch(e *event) {
	switch e.kind {
	case eventPublished:
		l.published(e)
	case eventSubscribed:
		l.subscribed(e)
	case eventWake:
		e.session.woken.Store(false)
		l.deliver(e.session)
	case eventKick:
		l.kicked(e.session, e.reason)
	case eventReceived:
		l.received(e.session, e.packetID)
	}
}

// handle is the way of one datagram: message format, type and code
// (RFC 7252 sections 4.2 and 4.3), then what is left, a request.
func (l *loop) handle(d *datagram) {
	pkt := &l.pkt
	if err := pkt.decode(d.data); err != nil {
		l.malformed(d, pkt, err)
		return
	}
	pkt.truncated = d.truncated
	switch {
	case pkt.typ == message.Acknowledgement || pkt.typ == message.Reset:
		if pkt.code != codes.Empty {
			l.metrics.drop(dropUnmatched) // we sent no request that this could answer
			return
		}
		l.acknowledged(d, pkt)
	case isRequest(pkt.code):
		l.request(d, pkt)
	case pkt.typ == message.Confirmable:
		// A ping, a response to nothing, or a reserved class.
		if pkt.code != codes.Empty {
			l.metrics.drop(dropUnexpected)
		}
		l.sendEmpty(d, message.Reset, pkt.mid)
	default:
		l.metrics.drop(dropUnexpected)
	}
}

// malformed rejects a confirmable message with RST and ignores the rest; it
// never touches the state of the peer, whose address may be forged.
func (l *loop) malformed(d *datagram, pkt *packet, err error) {
	if !errors.Is(err, errFormat) {
		l.metrics.drop(dropNoCoAP)
		return
	}
	l.metrics.drop(dropFormat)
	if pkt.typ == message.Confirmable {
		l.sendEmpty(d, message.Reset, pkt.mid)
	}
}
