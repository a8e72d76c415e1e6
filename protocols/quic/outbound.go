package quic

import (
	"encoding/binary"
	"errors"
	"net"
	"os"

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
			if err := m.enqueue(st, h, p, rest); err != nil {
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

// writeControl writes to the control stream, behind what ended data streams have
// left for it.
func (m *mux) writeControl(head, payload []byte) error {
	m.mu.Lock()
	late := m.late
	m.late = nil
	m.mu.Unlock()
	if len(late)+len(head) == 0 {
		return nil
	}
	s := m.c.current()
	if s == nil {
		return errNoStream
	}
	b := net.Buffers{late, head, payload}
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
		n := 2 + int(binary.BigEndian.Uint16(body))
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.routes.of(body[2:n]), true
	case wire.PUBREL:
		return m.routeRelease(body), true
	case wire.PINGRESP:
		return nil, m.routePing()
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

// routeRelease says where a PUBREL goes.
func (m *mux) routeRelease(body []byte) *stream {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.release[binary.BigEndian.Uint16(body)]
	if r == nil {
		return nil
	}
	r.sent = true
	return r.st
}

// routePing reports whether the client waits for a PINGRESP.
func (m *mux) routePing() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pings == 0 {
		return true
	}
	m.pings--
	return false
}

// routeAnswer gives an answer to whom it is for, under the client's identifier.
func (m *mux) routeAnswer(t wire.Type, body []byte) (st *stream, keep bool) {
	sid := binary.BigEndian.Uint16(body)
	failed := len(body) > 2 && body[2] >= 0x80
	m.mu.Lock()
	defer m.mu.Unlock()
	if t == wire.SUBACK || t == wire.UNSUBACK {
		m.reroute(t, body, m.ids.asked(sid))
	}
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

// reroute takes from SUBACK and UNSUBACK where messages go from now on: what the
// client is refused changes nothing. Caller holds mu.
func (m *mux) reroute(t wire.Type, body []byte, filters []string) {
	if len(filters) == 0 {
		return
	}
	to := m.ids.owners[binary.BigEndian.Uint16(body)].st
	if t == wire.UNSUBACK || to.control || to.leaving {
		to = nil
	}
	// The codes are the end of the packet; before version 5 UNSUBACK has none,
	// and cannot refuse.
	codes := body[2:]
	if len(codes) < len(filters) {
		codes = make([]byte, len(filters))
	}
	codes = codes[len(codes)-len(filters):]
	for i, f := range filters {
		if codes[i] < 0x80 {
			m.routes.set(f, to)
		}
	}
}

// enqueue gives a packet to the writer of a data stream. What is for a stream
// that has ended goes to the control stream as moves says.
func (m *mux) enqueue(st *stream, h wire.Header, head, payload []byte) error {
	n := len(head) + len(payload)
	for {
		m.mu.Lock()
		if st.closed {
			moves := m.moves(st, h, head)
			m.mu.Unlock()
			if !moves {
				return nil
			}
			return m.writeControl(head, payload)
		}
		if len(st.out) == 0 || len(st.out)+n <= streamQueue {
			st.out = append(append(st.out, head...), payload...)
			m.mu.Unlock()
			st.nudge()
			return nil
		}
		m.mu.Unlock()
		if h.Type == wire.PUBLISH && h.Flags&6 == 0 {
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

// moves reports whether a packet that an ended data stream has not got goes to
// the control stream: PUBRELs and messages do, but QoS 0 ends with a stream that
// is aborted, as its subscriptions do. Caller holds mu.
func (m *mux) moves(st *stream, h wire.Header, p []byte) bool {
	switch h.Type {
	case wire.PUBREL:
		delete(m.release, binary.BigEndian.Uint16(p[h.Size:]))
		return true
	case wire.PUBLISH:
		return h.Flags&6 != 0 || !st.gone
	}
	return false
}
