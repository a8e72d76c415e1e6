package quic

import (
	"errors"
	"io"
	"slices"
	"sync"

	"github.com/quic-go/quic-go"

	"gantry/protocols/mqtt/wire"
)

const (
	// streamBuffer is what a stream receives with while its packets are small.
	streamBuffer = 4 << 10
	// keepBuffer is the largest buffer that is kept between packets. Streams do
	// not take turns with larger ones: what a stream that waits has not read would
	// use up the window that the others need.
	keepBuffer = 64 << 10
)

var (
	errLost      = errors.New("the connection has ended")
	errFrameSize = errors.New("packet is larger than the maximum")
)

// stream is one stream of a mux. Its reader owns it but for what the mux's mu
// covers.
type stream struct {
	m       *mux
	s       *quic.Stream
	control bool
	read    chan struct{} // what deliver has handed over was read

	buf  []byte
	r, w int

	arrived int // bytes since the last sign of life

	raw bool // control stream: what follows cannot be read as packets, and goes on as it is

	wake chan struct{} // there is something to write, or nothing more to come
	room chan struct{} // there is room in out

	ids       map[uint16]uint16 // covered by the mux's mu, as is the rest: the client's identifier to the session's
	out       []byte            // what the writer has to write
	leaving   bool              // messages do not come here any more
	finishing bool              // the client has ended its side: ours ends when it has its answers
	gone      bool              // nothing may be written any more
	closed    bool              // the writer has ended: out is not looked at any more
	unwanted  []string          // filters that are to be unsubscribed, because the stream was aborted
}

func newStream(m *mux, s *quic.Stream) *stream {
	return &stream{
		m: m, s: s, read: make(chan struct{}, 1), wake: make(chan struct{}, 1), room: make(chan struct{}, 1),
		ids: make(map[uint16]uint16),
	}
}

// run serves a data stream until both sides have ended.
func (st *stream) run() {
	defer st.s.ReleaseStreamCredit()
	metrics := st.m.c.l.metrics
	metrics.streams.Inc()
	defer metrics.streams.Dec()
	var writer sync.WaitGroup
	writer.Go(st.send)
	defer func() {
		writer.Wait()
		st.salvage()
	}()
	err := st.receive()
	code := streamCode(err)
	var reset *quic.StreamError
	switch {
	case errors.Is(err, io.EOF):
		st.finish()
	case code != 0:
		metrics.aborted.Inc()
		st.m.c.l.log.Debug("stream is ended for a fault of the client", "remote", st.m.c.qc.RemoteAddr().String(),
			"stream", int64(st.s.StreamID()), "err", err)
		st.lose(code)
	case errors.As(err, &reset):
		st.lose(0)
	default: // with the connection: the session keeps what it has
		st.abort(0, false)
	}
}

// lose ends a stream at once, and what was subscribed to on it.
func (st *stream) lose(code quic.StreamErrorCode) {
	st.abort(code, true)
	st.unsubscribe()
}

// receive hands the packets of a stream to package mqtt until the stream ends.
func (st *stream) receive() error {
	for {
		n, need, first, err := st.scan()
		if n > 0 && !st.m.deliver(st.buf[st.r:st.r+n], st) {
			return errLost
		}
		st.r += n
		if len(first) > 0 && !st.m.deliver(first, st) {
			return errLost
		}
		if err != nil {
			return err
		}
		if len(first) > 0 {
			continue
		}
		if err := st.fill(need); err != nil {
			return err
		}
	}
}

// scan prepares the whole packets in the buffer: their first n bytes can go on.
// need is the length of the packet behind them, 0 when it is not known. first
// must go on behind them and before the next packet.
func (st *stream) scan() (n, need int, first []byte, err error) {
	for {
		b := st.buf[st.r+n : st.w]
		if st.raw {
			return n + len(b), 0, nil, nil
		}
		h, ok, err := wire.ParseHeader(b, st.m.version)
		if err == nil && ok && h.Total() > st.m.c.l.cfg.MaxPacketSize {
			err = errFrameSize
		}
		if err == nil && !ok {
			return n, 0, nil, nil
		}
		if err == nil && h.Total() > len(b) {
			return n, h.Total(), nil, nil
		}
		if err == nil {
			first, err = st.inbound(h, b[:h.Total()])
		}
		if err != nil && st.control && !errors.Is(err, errNoIDs) {
			st.raw = true // package mqtt has the words for it
			continue
		}
		if err != nil || len(first) > 0 {
			return n, 0, first, err
		}
		n += h.Total()
	}
}

// fill reads at least one byte. Memory grows with what arrives: a length alone
// costs nothing.
func (st *stream) fill(need int) error {
	if st.r == st.w {
		st.r, st.w = 0, 0
		if len(st.buf) > keepBuffer {
			st.buf = nil
		}
	}
	if st.w == len(st.buf) {
		st.grow(need)
	}
	n, err := st.s.Read(st.buf[st.w:])
	st.w += n
	if st.arrived += n; st.arrived >= lifeSign {
		st.arrived = 0
		st.m.alive.note()
	}
	if n > 0 {
		return nil
	}
	return err
}

// grow makes room behind the unread bytes.
func (st *stream) grow(need int) {
	used := st.w - st.r
	size := max(streamBuffer, min(need, 2*used))
	to := st.buf
	if size > len(to) {
		to = make([]byte, size)
	}
	st.r, st.w = 0, copy(to, st.buf[st.r:st.w])
	st.buf = to
}

// finish ends a stream whose client sends nothing more on it: it gets the
// answers that it waits for, and what it has subscribed to goes to the control
// stream from now on.
func (st *stream) finish() {
	m := st.m
	m.mu.Lock()
	st.leaving = true
	m.routes.drop(st)
	open := m.ids.abandonExact(st)
	m.mu.Unlock()
	st.closeExact(open)
	m.mu.Lock()
	st.finishing = true
	m.mu.Unlock()
	st.nudge()
}

// abort ends a stream at once, and with forget what was subscribed to on it.
func (st *stream) abort(code quic.StreamErrorCode, forget bool) {
	m := st.m
	m.mu.Lock()
	st.gone, st.leaving = true, true
	open, pending := m.ids.abandon(st)
	if forget {
		m.disown(st, append(m.routes.drop(st), pending...))
	}
	m.mu.Unlock()
	st.closeExact(open) // before the client knows, and goes on on another stream
	st.s.CancelWrite(code)
	st.s.CancelRead(code)
	st.nudge()
}

// closeExact releases identifiers of QoS 2 whose PUBREL will not come, so that
// the session does not take a later message for one that has come already.
func (st *stream) closeExact(open []uint16) {
	var b []byte
	m := st.m
	for _, sid := range open {
		b = wire.AppendAck(b, wire.PUBREL, sid, wire.CodeSuccess, m.version)
	}
	if len(b) > 0 {
		m.deliver(b, st)
	}
}

// unsubscribe ends the subscriptions that a client made on a stream that it has
// aborted, or that was ended for its fault.
func (st *stream) unsubscribe() {
	m := st.m
	for more := true; more; {
		m.mu.Lock()
		more = len(st.unwanted) > 0
		m.mu.Unlock()
		more = more && m.hand(frame{late: st.nextUnsubscribe, from: st})
	}
	m.mu.Lock()
	m.disowned = slices.DeleteFunc(m.disowned, func(o *stream) bool { return o == st })
	m.mu.Unlock()
}

// nextUnsubscribe is made at the moment when it is read: a SUBSCRIBE that comes
// first has taken its filters out, and any other one is read behind it.
func (st *stream) nextUnsubscribe() (b []byte) {
	m := st.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(st.unwanted) == 0 {
		return nil
	}
	sid := m.ids.own()
	if sid == 0 {
		st.unwanted = nil
		return nil
	}
	b, st.unwanted = appendUnsubscribe(nil, sid, st.unwanted, m.version)
	return b
}

// appendUnsubscribe appends an UNSUBSCRIBE with as many filters as a packet of
// moderate size has, and returns the rest of them.
func appendUnsubscribe(dst []byte, id uint16, filters []string, v wire.Version) (packet []byte, rest []string) {
	body := []byte{byte(id >> 8), byte(id)}
	if v == wire.V5 {
		body = append(body, 0)
	}
	n := 0
	for ; n < len(filters) && (n == 0 || len(body)+2+len(filters[n]) < 1000); n++ {
		f := filters[n]
		body = append(append(body, byte(len(f)>>8), byte(len(f))), f...)
	}
	dst = append(dst, byte(wire.UNSUBSCRIBE)<<4|2)
	for left := len(body); ; {
		b := byte(left & 0x7F)
		if left >>= 7; left == 0 {
			dst = append(dst, b)
			break
		}
		dst = append(dst, b|0x80)
	}
	return append(dst, body...), filters[n:]
}

// nudge wakes the writer.
func (st *stream) nudge() { signal(st.wake) }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
