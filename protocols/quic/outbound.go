package quic

import (
	"encoding/binary"
	"errors"
	"net"
	"os"

	"github.com/quic-go/quic-go"

	"gantry/protocols/mqtt/wire"
)

// streamQueue is how many bytes may wait for a data stream that the client does
// not read. What is more is lost with QoS 0; with QoS 1 and 2 everything waits,
// until the write deadline.
const streamQueue = 256 << 10

var errPacket = errors.New("BUG: a write is not of whole packets")

// write is Conn.Write, for whole packets. payload, if any, is the end of the
// last of them. Identifiers in head may be changed.
func (m *mux) write(head, payload []byte) (int, error) {
	from := 0 // of what goes to the control stream and is not written yet
	for at := 0; at < len(head); {
		h, ok, err := wire.ParseHeader(head[at:], m.version)
		if err != nil || !ok {
			return from, errPacket
		}
		end := at + h.Total()
		last := end > len(head)
		if last && end != len(head)+len(payload) {
			return from, errPacket
		}
		p := head[at:min(end, len(head))]
		st, keep := m.route(h, p)
		if keep && st == nil {
			at = end
			continue
		}
		if err := m.writeControl(head[from:at], nil); err != nil {
			return from, err
		}
		if keep {
			rest := payload
			if !last {
				rest = nil
			}
			if err := m.enqueue(st, p, rest, h.Type == wire.PUBLISH && h.Flags&6 == 0); err != nil {
				return at, err
			}
		}
		if last {
			return len(head) + len(payload), nil
		}
		at, from = end, end
	}
	if err := m.writeControl(head[from:], payload); err != nil {
		return from, err
	}
	return len(head) + len(payload), nil
}

// writeControl writes to the control stream.
func (m *mux) writeControl(head, payload []byte) error {
	if len(head) == 0 {
		return nil
	}
	s := m.c.current()
	if s == nil {
		return errNoStream
	}
	b := net.Buffers{head, payload}
	_, err := b.WriteTo(s)
	return err
}

// route says where a packet goes: nil is the control stream. Packets that
// nobody waits for are not kept.
func (m *mux) route(h wire.Header, p []byte) (st *stream, keep bool) {
	body := p[h.Size:]
	switch h.Type {
	case wire.CONNACK:
		m.greeted(body)
		return nil, true
	case wire.PUBLISH:
		return m.routeMessage(h, body), true
	case wire.PUBREL:
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.release[binary.BigEndian.Uint16(body)], true
	case wire.PUBACK, wire.PUBREC, wire.PUBCOMP, wire.SUBACK, wire.UNSUBACK:
		return m.routeAnswer(h.Type, body)
	}
	return nil, true
}

// greeted lets the data streams of an accepted client in.
func (m *mux) greeted(body []byte) {
	if len(body) < 2 || body[1] != 0 {
		return
	}
	m.mu.Lock()
	m.ids.resumed = body[0]&1 != 0
	m.mu.Unlock()
	m.welcome()
}

func (m *mux) routeMessage(h wire.Header, body []byte) *stream {
	n := 2 + int(binary.BigEndian.Uint16(body))
	m.mu.Lock()
	defer m.mu.Unlock()
	st := m.routes.of(body[2:n])
	if h.Flags>>1&3 == 2 && st != nil {
		m.release[binary.BigEndian.Uint16(body[n:])] = st
	}
	return st
}

// routeAnswer gives an answer to whom it is for, under the client's identifier.
func (m *mux) routeAnswer(t wire.Type, body []byte) (st *stream, keep bool) {
	sid := binary.BigEndian.Uint16(body)
	failed := len(body) > 2 && body[2] >= 0x80
	m.mu.Lock()
	defer m.mu.Unlock()
	st, id := m.ids.answer(t, sid, failed)
	if st == nil {
		return nil, false
	}
	binary.BigEndian.PutUint16(body, id)
	if st.control {
		return nil, true
	}
	return st, true
}

// enqueue gives a packet to the writer of a data stream. What is for a stream
// that has ended stays unacknowledged, and the session sends it again on a
// later connection.
func (m *mux) enqueue(st *stream, head, payload []byte, droppable bool) error {
	n := len(head) + len(payload)
	for {
		m.mu.Lock()
		if st.gone {
			m.mu.Unlock()
			return nil
		}
		if len(st.out) == 0 || len(st.out)+n <= streamQueue {
			st.out = append(append(st.out, head...), payload...)
			m.mu.Unlock()
			st.nudge()
			return nil
		}
		m.mu.Unlock()
		if droppable {
			m.c.l.metrics.dropped.Inc()
			return nil
		}
		select {
		case <-st.room:
		case <-m.writeBy.wait():
			return os.ErrDeadlineExceeded
		case <-m.closing:
			return net.ErrClosed
		}
	}
}

// send writes what is queued for a data stream, until it ends.
func (st *stream) send() {
	for {
		select {
		case <-st.wake:
		case <-st.m.closing:
			return
		}
		st.m.mu.Lock()
		b, done := st.out, st.gone || st.finishing && len(st.ids) == 0
		st.out = nil
		st.m.mu.Unlock()
		signal(st.room)
		if len(b) > 0 {
			if _, err := st.s.Write(b); err != nil {
				st.stopped(err)
				return
			}
			st.nudge() // there may be more, or nothing more to come
			continue
		}
		if done {
			_ = st.s.Close()
			return
		}
	}
}

// stopped ends a stream whose client takes nothing more.
func (st *stream) stopped(err error) {
	var reset *quic.StreamError
	if !errors.As(err, &reset) || !reset.Remote {
		return // the reader has ended it, or the connection has ended
	}
	st.m.mu.Lock()
	st.gone, st.out = true, nil
	st.m.mu.Unlock()
	signal(st.room)
	st.s.CancelRead(0) // the reader does the rest
}
