package mqtt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// packet is a packet of the server.
type packet struct {
	kind byte // one of the packet types
	raw  []byte

	// PUBLISH
	topic, payload string
	qos            byte
	retain, dup    bool

	id      int  // packet identifier
	present bool // Session Present
	code    byte // of CONNACK, DISCONNECT, AUTH and the acknowledgements
	codes   []byte
	props   properties
}

func (p *packet) String() string {
	if p == nil {
		return "no packet"
	}
	s := fmt.Sprintf("%s % x", kindName(p.kind), p.raw)
	if len(s) > 200 {
		s = s[:200] + "…"
	}
	return s
}

func kindName(kind byte) string {
	return [16]string{
		"reserved", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP",
		"SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH",
	}[kind>>4]
}

// codesOf lists the reason codes of version 5 that a server may send.
var codesOf = map[byte][]byte{
	connackType: {
		0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
	},
	pubackType:   {0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99},
	pubrecType:   {0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99},
	pubrelType:   {0x00, 0x92},
	pubcompType:  {0x00, 0x92},
	subackType:   {0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2},
	unsubackType: {0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91},
	disconnectType: {
		0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C,
		0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
	},
	authType: {0x00, 0x18},
}

var (
	errShort    = errors.New("it ends too early")
	errTail     = errors.New("bytes follow its end")
	errOverlong = errors.New("a variable byte integer is longer than it needs to be")
	errText     = errors.New("a string is not valid UTF-8 or holds U+0000")
	errFlags    = errors.New("the flags of its fixed header are wrong")
	errZeroID   = errors.New("its packet identifier is 0")
	errWildcard = errors.New("its topic name has a wildcard")
)

// decode reads the body of a packet from a server and checks it against the
// standard.
func decode(first byte, body []byte, version byte) (*packet, error) {
	p := &packet{kind: first & 0xF0}
	if err := p.checkFlags(first, version); err != nil {
		return p, err
	}
	r := reader{b: body}
	switch p.kind {
	case connackType:
		p.readConnack(&r, version)
	case publishType:
		p.readPublish(&r, version)
	case pubackType, pubrecType, pubrelType, pubcompType:
		p.readAck(&r, version)
	case subackType, unsubackType:
		p.readCodes(&r, version)
	case disconnectType, authType:
		p.readDisconnect(&r)
	}
	if r.err == nil && len(r.b) > 0 {
		r.err = errTail
	}
	return p, r.err
}

func (p *packet) checkFlags(first, version byte) error {
	want := byte(0)
	switch p.kind {
	case publishType:
		p.retain, p.dup, p.qos = first&1 != 0, first&8 != 0, first>>1&3
		if p.qos == 3 || p.dup && p.qos == 0 {
			return errFlags
		}
		return nil
	case pubrelType:
		want = 2
	case disconnectType, authType:
		if version != v5 {
			return fmt.Errorf("a server may not send %s in this version", kindName(p.kind))
		}
	case connackType, pubackType, pubrecType, pubcompType, subackType, unsubackType, pingrespType:
	default:
		return fmt.Errorf("a server may not send %s", kindName(p.kind))
	}
	if first&0x0F != want {
		return errFlags
	}
	return nil
}

func (p *packet) readConnack(r *reader, version byte) {
	flags := r.byte()
	p.present, p.code = flags&1 != 0, r.byte()
	if flags > 1 {
		r.fail(errors.New("reserved acknowledge flags are set"))
	}
	if version != v5 {
		if p.code > 5 {
			r.fail(fmt.Errorf("return code %d is reserved", p.code))
		}
		return
	}
	p.checkCode(r, p.code)
	p.props = r.readProperties(p.kind)
}

func (p *packet) readPublish(r *reader, version byte) {
	p.topic = r.text()
	if p.qos > 0 {
		p.id = r.packetID()
	}
	if version == v5 {
		p.props = r.readProperties(p.kind)
	}
	switch {
	case strings.ContainsAny(p.topic, "+#"):
		r.fail(errWildcard)
	case p.topic == "" && !p.props.has(pTopicAlias):
		r.fail(errors.New("it has neither a topic name nor a topic alias"))
	}
	p.payload, r.b = string(r.b), nil
}

func (p *packet) readAck(r *reader, version byte) {
	p.id = r.packetID()
	if version != v5 || len(r.b) == 0 {
		return
	}
	p.code = r.byte()
	p.checkCode(r, p.code)
	if len(r.b) > 0 {
		p.props = r.readProperties(p.kind)
	}
}

func (p *packet) readCodes(r *reader, version byte) {
	p.id = r.packetID()
	if version == v5 {
		p.props = r.readProperties(p.kind)
	} else if p.kind == unsubackType {
		return
	}
	p.codes, r.b = slices.Clone(r.b), nil
	for _, code := range p.codes {
		if version == v5 {
			p.checkCode(r, code)
		} else if code > 2 && code != 0x80 {
			r.fail(fmt.Errorf("return code %#02x is reserved", code))
		}
	}
}

func (p *packet) readDisconnect(r *reader) {
	if len(r.b) == 0 {
		return
	}
	p.code = r.byte()
	p.checkCode(r, p.code)
	if len(r.b) > 0 {
		p.props = r.readProperties(p.kind)
	}
}

func (p *packet) checkCode(r *reader, code byte) {
	if !slices.Contains(codesOf[p.kind], code) {
		r.fail(fmt.Errorf("reason code %#02x is not one that a server may send in it", code))
	}
}

// reader takes a packet body apart. Its first error sticks.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

func (r *reader) take(n int) []byte {
	if r.err != nil || n > len(r.b) {
		r.fail(errShort)
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() int {
	if b := r.take(2); b != nil {
		return int(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (r *reader) u32() int {
	if b := r.take(4); b != nil {
		return int(binary.BigEndian.Uint32(b))
	}
	return 0
}

// varint reads a variable byte integer in its shortest form [MQTT-1.5.5-1].
func (r *reader) varint() (n int) {
	for i := range 4 {
		b := r.byte()
		n |= int(b&0x7F) << (7 * i)
		if b < 0x80 {
			if i > 0 && b == 0 {
				r.fail(errOverlong)
			}
			return n
		}
	}
	r.fail(errOverlong)
	return 0
}

func (r *reader) binary() string { return string(r.take(r.u16())) }

func (r *reader) text() string {
	s := r.binary()
	if !utf8.ValidString(s) || strings.Contains(s, "\x00") {
		r.fail(errText)
	}
	return s
}

func (r *reader) packetID() int {
	id := r.u16()
	if id == 0 && r.err == nil {
		r.fail(errZeroID)
	}
	return id
}
