package quic

import (
	"errors"

	"github.com/quic-go/quic-go"

	"gantry/protocols/mqtt/wire"
)

// send writes what is queued for a data stream, until it ends.
func (st *stream) send() {
	m := st.m
	for {
		select {
		case <-st.wake:
		case <-m.closing:
			return
		}
		m.mu.Lock()
		b, done := st.out, st.finishing && len(st.ids) == 0 && len(st.out) == 0
		if st.gone || done {
			st.leave(b)
			gone := st.gone
			m.mu.Unlock()
			if !gone {
				_ = st.s.Close()
			}
			return
		}
		st.out = nil
		m.mu.Unlock()
		signal(st.room)
		if len(b) == 0 {
			continue
		}
		if n, err := st.s.Write(b); err != nil {
			st.stopped(err)
			m.mu.Lock()
			st.leave(append(unwritten(b, n, m.version), st.out...))
			m.mu.Unlock()
			return
		}
		st.nudge() // there may be more, or nothing more to come
	}
}

// leave ends the queue of a stream. Of what it has not written, messages and
// PUBRELs are for the control stream now, in their order. Caller holds mu.
func (st *stream) leave(rest []byte) {
	m := st.m
	st.closed, st.out = true, nil
	signal(st.room)
	for len(rest) > 0 {
		h, ok, err := wire.ParseHeader(rest, m.version)
		if err != nil || !ok || h.Total() > len(rest) {
			return // not reached: enqueue takes whole packets
		}
		if m.moves(st, h, rest) {
			m.late = append(m.late, rest[:h.Total()]...)
		}
		rest = rest[h.Total():]
	}
}

// unwritten returns the packets of b that are not within its first n bytes.
func unwritten(b []byte, n int, v wire.Version) []byte {
	for len(b) > 0 {
		h, ok, err := wire.ParseHeader(b, v)
		if err != nil || !ok || h.Total() > n {
			break
		}
		b, n = b[h.Total():], n-h.Total()
	}
	return b
}

// stopped ends a stream whose client takes nothing more.
func (st *stream) stopped(err error) {
	var reset *quic.StreamError
	if !errors.As(err, &reset) || !reset.Remote {
		return // the reader has ended it, or the connection has ended
	}
	st.m.mu.Lock()
	st.gone = true
	st.m.mu.Unlock()
	st.s.CancelRead(0) // the reader does the rest
}

// salvage has the control stream get what an ended stream did not: packets
// that wait, and PUBRELs that the client may have refused with the stream. The
// session sends those again when it is told of PUBREC again. The writer must
// have ended.
func (st *stream) salvage() {
	m := st.m
	var again []byte
	m.mu.Lock()
	for id, r := range m.release {
		if r.st != st {
			continue
		}
		if r.sent && st.gone {
			again = wire.AppendAck(again, wire.PUBREC, id, wire.CodeSuccess, m.version)
		}
		delete(m.release, id)
	}
	if len(m.late) > 0 { // the answer makes package mqtt write
		m.pings++
		again = append(again, byte(wire.PINGREQ)<<4, 0)
	}
	m.mu.Unlock()
	if len(again) > 0 {
		m.deliver(again, st)
	}
}
