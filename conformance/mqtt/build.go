package mqtt

import (
	"encoding/binary"
	"slices"
)

// Protocol levels.
const (
	v311 byte = 4
	v5   byte = 5
)

// Packet types, in the upper half of the first byte.
const (
	connectType     byte = 0x10
	connackType     byte = 0x20
	publishType     byte = 0x30
	pubackType      byte = 0x40
	pubrecType      byte = 0x50
	pubrelType      byte = 0x60
	pubcompType     byte = 0x70
	subscribeType   byte = 0x80
	subackType      byte = 0x90
	unsubscribeType byte = 0xA0
	unsubackType    byte = 0xB0
	pingreqType     byte = 0xC0
	pingrespType    byte = 0xD0
	disconnectType  byte = 0xE0
	authType        byte = 0xF0
)

// Bits of the Connect Flags.
const (
	flagReserved   byte = 0x01
	flagClean      byte = 0x02
	flagWill       byte = 0x04
	flagWillQoS1   byte = 0x08
	flagWillQoS2   byte = 0x10
	flagWillRetain byte = 0x20
	flagPassword   byte = 0x40
	flagUsername   byte = 0x80
)

func u16(n int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(n)) }

func u32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// str is a string or binary data with its length before it.
func str(s string) []byte { return append(u16(len(s)), s...) }

func varint(n int) []byte {
	var b []byte
	for n >= 0x80 {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return append(b, byte(n))
}

func join(parts ...[]byte) []byte { return slices.Concat(parts...) }

// frame puts a fixed header before a body.
func frame(first byte, parts ...[]byte) []byte {
	body := join(parts...)
	return join([]byte{first}, varint(len(body)), body)
}

// props is a property block: its length and the properties.
func props(list ...[]byte) []byte {
	all := join(list...)
	return append(varint(len(all)), all...)
}

func propByte(id, v byte) []byte          { return []byte{id, v} }
func propU16(id byte, n int) []byte       { return append([]byte{id}, u16(n)...) }
func propU32(id byte, n uint32) []byte    { return append([]byte{id}, u32(n)...) }
func propVarint(id byte, n int) []byte    { return append([]byte{id}, varint(n)...) }
func propString(id byte, s string) []byte { return append([]byte{id}, str(s)...) }
func userProperty(name, value string) []byte {
	return join([]byte{pUserProperty}, str(name), str(value))
}

func optionalProps(v byte, p [][]byte) []byte { // a property block, if the version has them
	if v != v5 {
		return nil
	}
	return props(p...)
}

// connect describes a CONNECT packet. The zero value of a field leaves it out.
type connect struct {
	name      string // protocol name; "" = MQTT
	level     byte   // protocol level; 0 = that of the check
	id        string
	keep      bool // Clean Session or Clean Start 0
	keepAlive int  // seconds
	props     [][]byte
	will      *will
	username  *string
	password  *string
	setFlags  byte   // further bits of the Connect Flags
	tail      []byte // bytes behind the payload
}

type will struct {
	topic, payload string
	qos            byte
	retain         bool
	props          [][]byte
}

// encode builds the packet for a protocol version.
func (c connect) encode(version byte) []byte {
	name, level := c.name, c.level
	if name == "" {
		name = "MQTT"
	}
	if level == 0 {
		level = version
	}
	return frame(connectType, str(name), []byte{level, c.flags() | c.setFlags}, u16(c.keepAlive),
		optionalProps(version, c.props), c.payload(version), c.tail)
}

func (c connect) flags() (f byte) {
	if !c.keep {
		f |= flagClean
	}
	if c.will != nil {
		f |= flagWill | c.will.qos<<3
		if c.will.retain {
			f |= flagWillRetain
		}
	}
	if c.username != nil {
		f |= flagUsername
	}
	if c.password != nil {
		f |= flagPassword
	}
	return f
}

func (c connect) payload(version byte) []byte {
	b := str(c.id)
	if w := c.will; w != nil {
		b = join(b, optionalProps(version, w.props), str(w.topic), str(w.payload))
	}
	if c.username != nil {
		b = append(b, str(*c.username)...)
	}
	if c.password != nil {
		b = append(b, str(*c.password)...)
	}
	return b
}

// publication describes a PUBLISH packet.
type publication struct {
	topic, payload string
	qos            byte
	retain, dup    bool
	id             int // packet identifier, with QoS 1 and 2
	props          [][]byte
}

func (p publication) encode(version byte) []byte {
	first := publishType | p.qos<<1
	if p.retain {
		first |= 1
	}
	if p.dup {
		first |= 8
	}
	var id []byte
	if p.qos > 0 {
		id = u16(p.id)
	}
	return frame(first, str(p.topic), id, optionalProps(version, p.props), []byte(p.payload))
}

// filter is a topic filter with its options byte.
type filter struct {
	topic   string
	options byte
}

// Bits of the subscription options of version 5.
const (
	noLocal           byte = 0x04
	retainAsPublished byte = 0x08
	retainIfNew       byte = 0x10 // Retain Handling 1
	retainNever       byte = 0x20 // Retain Handling 2
)

func subscribePacket(version byte, id int, p [][]byte, filters ...filter) []byte {
	b := join(u16(id), optionalProps(version, p))
	for _, f := range filters {
		b = join(b, str(f.topic), []byte{f.options})
	}
	return frame(subscribeType|2, b)
}

func unsubscribePacket(version byte, id int, filters ...string) []byte {
	b := join(u16(id), optionalProps(version, nil))
	for _, f := range filters {
		b = append(b, str(f)...)
	}
	return frame(unsubscribeType|2, b)
}

// ackPacket is PUBACK, PUBREC, PUBREL or PUBCOMP without a reason code.
func ackPacket(kind byte, id int) []byte {
	if kind == pubrelType {
		kind |= 2
	}
	return frame(kind, u16(id))
}

// ackCodePacket is one with a reason code, version 5.
func ackCodePacket(kind byte, id int, code byte) []byte {
	if kind == pubrelType {
		kind |= 2
	}
	return frame(kind, u16(id), []byte{code})
}

func disconnectPacket(version, code byte, p ...[]byte) []byte {
	if version != v5 {
		return frame(disconnectType)
	}
	return frame(disconnectType, []byte{code}, props(p...))
}

var pingreq = []byte{pingreqType, 0}
