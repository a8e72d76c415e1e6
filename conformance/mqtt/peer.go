package mqtt

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// peer is a connection that leaves every decision to the check.
type peer struct {
	c       *C
	nc      net.Conn
	in      *bufio.Reader
	id      string  // client identifier
	ack     *packet // CONNACK
	lastID  int     // last packet identifier given
	waiting []*packet
	ended   *packet // DISCONNECT of the server
	what    string  // what was sent, for messages
}

func newPeer(c *C, nc net.Conn) *peer {
	return &peer{c: c, nc: nc, in: bufio.NewReaderSize(nc, 1<<16)}
}

// send writes packets. That the server has closed meanwhile is not an error
// here: the next read tells.
func (p *peer) send(packets ...[]byte) {
	if err := p.nc.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return
	}
	if _, err := p.nc.Write(join(packets...)); errors.Is(err, os.ErrDeadlineExceeded) {
		p.c.failf("the server does not read")
	}
}

// drop closes the connection without DISCONNECT.
func (p *peer) drop() { _ = p.nc.Close() }

// crash makes the server end the connection for an error, and waits until it
// has: for it the client is gone without DISCONNECT.
func (p *peer) crash() {
	p.send(p.c.violation())
	p.gone()
}

// leave disconnects in order and waits for the server to close.
func (p *peer) leave(code byte, props ...[]byte) {
	p.send(disconnectPacket(p.c.v, code, props...))
	p.gone()
}

// gone reads, whatever comes, until the server has closed the connection.
func (p *peer) gone() {
	for deadline := time.Now().Add(patience); ; {
		if _, err := p.next(time.Until(deadline)); err != nil {
			p.closed(err)
			return
		}
	}
}

// nextID is a packet identifier that is not in use.
func (p *peer) nextID() int {
	p.lastID++
	return p.lastID
}

// next reads one packet. An error is the end of the connection or the
// deadline; a packet that breaks the standard ends the check.
func (p *peer) next(within time.Duration) (*packet, error) {
	if err := p.nc.SetReadDeadline(time.Now().Add(within)); err != nil {
		return nil, err
	}
	head, err := p.header()
	if err != nil {
		return nil, err
	}
	body := make([]byte, head.length)
	if _, err := io.ReadFull(p.in, body); err != nil {
		return nil, err
	}
	got, err := decode(head.raw[0], body, p.c.v)
	got.raw = join(head.raw, body)
	if err != nil {
		p.c.failf("the server sends a malformed packet, %s: %v", got, err)
	}
	p.c.require(p.ended == nil, "after DISCONNECT comes %s", got)
	if got.kind == disconnectType {
		p.ended = got
	}
	return got, nil
}

type fixedHeader struct {
	raw    []byte
	length int
}

func (p *peer) header() (h fixedHeader, err error) {
	for i := range 5 {
		b, err := p.in.ReadByte()
		if err != nil {
			return h, err
		}
		h.raw = append(h.raw, b)
		if i == 0 {
			continue
		}
		h.length |= int(b&0x7F) << (7 * (i - 1))
		if b < 0x80 {
			if i > 1 && b == 0 {
				p.c.failf("the server sends a remaining length of more bytes than it needs: % x", h.raw)
			}
			return h, nil
		}
	}
	p.c.failf("the server sends a remaining length of more than four bytes: % x", h.raw)
	return h, nil
}

// read returns the next packet, which must come.
func (p *peer) read() *packet {
	if len(p.waiting) > 0 {
		got := p.waiting[0]
		p.waiting = p.waiting[1:]
		return got
	}
	got, err := p.next(patience)
	if err != nil {
		p.c.failf("instead of a packet: %v%s", err, p.farewell())
	}
	return got
}

func (p *peer) farewell() string {
	if p.ended == nil {
		return ""
	}
	return fmt.Sprintf(" after DISCONNECT %#02x %s", p.ended.code, p.ended.props.text(pReasonString))
}

// expect returns the next packet, which must be of the given type.
func (p *peer) expect(kind byte) *packet {
	got := p.read()
	p.c.require(got.kind == kind, "%s is expected, %s comes", kindName(kind), got)
	return got
}

// await returns the next packet of the given type. What comes before it is
// kept for later reads.
func (p *peer) await(kind byte) *packet {
	var before []*packet
	for {
		got := p.read()
		if got.kind == kind {
			p.waiting = append(before, p.waiting...)
			return got
		}
		p.c.require(got.kind != disconnectType, "%s is expected, %s comes", kindName(kind), got)
		before = append(before, got)
	}
}

// awaitID is await for a packet that must have the given identifier.
func (p *peer) awaitID(kind byte, id int) *packet {
	got := p.await(kind)
	p.c.require(got.id == id, "%s is for %d, expected for %d", kindName(kind), got.id, id)
	return got
}

// fence sends PINGREQ twice, waits for both answers and returns what came
// besides. A server may send a delivery behind the answer to the first, in the
// same write; it cannot send what is ready behind the answer to the second.
func (p *peer) fence() (before []*packet) {
	for range 2 {
		p.send(pingreq)
		for {
			got := p.read()
			if got.kind == pingrespType {
				break
			}
			p.c.require(got.kind != disconnectType, "PINGRESP is expected, %s comes", got)
			before = append(before, got)
		}
	}
	return before
}

// nothing checks that the server has nothing for this client.
func (p *peer) nothing(why string) {
	if got := p.fence(); len(got) > 0 {
		p.c.failf("%s: %s", why, got[0])
	}
}

// closedBy waits for the server to end the connection. A DISCONNECT of version
// 5 must carry one of codes. It returns the DISCONNECT if there was one.
func (p *peer) closedBy(codes ...byte) *packet {
	return p.closedBefore(time.Now().Add(patience), codes...)
}

// closedBefore is closedBy with a deadline that may be over: what has arrived
// by then counts.
func (p *peer) closedBefore(deadline time.Time, codes ...byte) *packet {
	for {
		got, err := p.next(max(time.Until(deadline), 200*time.Millisecond))
		if err != nil {
			p.closed(err)
			break
		}
		p.c.require(got.kind != publishType, "%sinstead of the end of the connection: %s", p.about(), got)
	}
	if p.ended != nil && len(codes) > 0 {
		p.c.oneOf(p.ended.code, codes, p.about()+"reason code of DISCONNECT")
	}
	return p.ended
}

// closed checks that what ended a read is the end of the connection. It reads
// on if the read was fine.
func (p *peer) closed(err error) {
	for deadline := time.Now().Add(patience); err == nil; {
		var got *packet
		if got, err = p.next(time.Until(deadline)); err == nil {
			p.c.require(got.kind == disconnectType, "instead of the end of the connection: %s", got)
		}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		p.c.failf("%sthe connection stays open", p.about())
	}
}

func (p *peer) about() string {
	if p.what == "" {
		return ""
	}
	return p.what + ": "
}

// subscribe subscribes to topics with the same options, which must be granted.
func (p *peer) subscribe(options byte, topics ...string) {
	filters := make([]filter, len(topics))
	for i, topic := range topics {
		filters[i] = filter{topic, options}
	}
	codes := p.request(nil, filters...)
	for i, code := range codes {
		p.c.require(code == options&3, "subscription to %s with options %#02x is answered %#02x", topics[i], options, code)
	}
}

// request sends SUBSCRIBE and returns the codes of its SUBACK.
func (p *peer) request(props [][]byte, filters ...filter) []byte {
	id := p.nextID()
	p.send(subscribePacket(p.c.v, id, props, filters...))
	ack := p.awaitID(subackType, id)
	p.c.require(len(ack.codes) == len(filters), "SUBACK has %d codes for %d filters", len(ack.codes), len(filters))
	return ack.codes
}

func (p *peer) unsubscribe(topics ...string) *packet {
	id := p.nextID()
	p.send(unsubscribePacket(p.c.v, id, topics...))
	return p.awaitID(unsubackType, id)
}

// publish sends a message and completes its exchange, so that the server has
// dealt with it when publish returns.
func (p *peer) publish(m publication) {
	if code := p.offer(m); code >= 0x80 {
		p.c.failf("PUBLISH to %s is refused with %#02x", m.topic, code)
	}
}

// offer is publish for a message that the server may refuse; it returns the
// reason code.
func (p *peer) offer(m publication) byte {
	if m.qos > 0 && m.id == 0 {
		m.id = p.nextID()
	}
	p.send(m.encode(p.c.v))
	switch m.qos {
	case 0:
		p.send(pingreq)
		p.await(pingrespType)
		return 0
	case 1:
		return p.awaitID(pubackType, m.id).code
	}
	rec := p.awaitID(pubrecType, m.id)
	if rec.code >= 0x80 {
		return rec.code
	}
	p.send(ackPacket(pubrelType, m.id))
	p.awaitID(pubcompType, m.id)
	return rec.code
}

// receive returns the next message, not acknowledged.
func (p *peer) receive() *packet { return p.expect(publishType) }

// take returns the next message and completes its exchange.
func (p *peer) take() *packet {
	m := p.receive()
	p.confirm(m)
	return m
}

func (p *peer) confirm(m *packet) {
	switch m.qos {
	case 1:
		p.send(ackPacket(pubackType, m.id))
	case 2:
		p.send(ackPacket(pubrecType, m.id))
		p.awaitID(pubrelType, m.id)
		p.send(ackPacket(pubcompType, m.id))
	}
}

// gets takes the next message and checks its payload.
func (p *peer) gets(payload string) *packet {
	m := p.take()
	p.c.require(m.payload == payload, "a message with payload %.40q is expected, %.40q comes", payload, m.payload)
	return m
}
