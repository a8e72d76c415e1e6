package wire

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"
)

// cursor reads a packet body. The first error sticks and every later read
// returns zero values, so that a parser checks once.
type cursor struct {
	b   []byte
	err error
}

func (c *cursor) fail(err error) {
	if c.err == nil {
		c.err = err
	}
	c.b = nil
}

// take returns the next n bytes, or nil.
func (c *cursor) take(n int) []byte {
	if c.err != nil || len(c.b) < n {
		c.fail(errShort)
		return nil
	}
	out := c.b[:n:n]
	c.b = c.b[n:]
	return out
}

func (c *cursor) uint8() byte {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) uint16() uint16 {
	if b := c.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (c *cursor) uint32() uint32 {
	if b := c.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// varint reads a Variable Byte Integer (section 1.5.5).
func (c *cursor) varint() uint32 {
	var n uint32
	for i := range 4 {
		b := c.uint8()
		if c.err != nil {
			return 0
		}
		n |= uint32(b&0x7f) << (7 * i)
		if b < 0x80 {
			if i > 0 && b == 0 {
				c.fail(errOverlong)
			}
			return n
		}
	}
	c.fail(errVarint)
	return 0
}

// binary reads Binary Data (section 1.5.6).
func (c *cursor) binary() []byte { return c.take(int(c.uint16())) }

// text reads a UTF-8 Encoded String [MQTT-1.5.4-1, MQTT-1.5.4-2].
func (c *cursor) text() []byte {
	b := c.binary()
	if err := checkText(b); err != nil {
		c.fail(err)
		return nil
	}
	return b
}

// packetID reads a packet identifier, which must not be 0 [MQTT-2.2.1-3].
func (c *cursor) packetID() uint16 {
	id := c.uint16()
	if id == 0 {
		c.fail(errPacketID0)
	}
	return id
}

// end returns the first error, or errLong when bytes are left over.
func (c *cursor) end() error {
	if c.err == nil && len(c.b) > 0 {
		return errLong
	}
	return c.err
}

func checkText(b []byte) error {
	if !utf8.Valid(b) {
		return errUTF8
	}
	if bytes.IndexByte(b, 0) >= 0 {
		return errNUL
	}
	return nil
}

// checkTopicName refuses wildcards in a text that names one topic
// [MQTT-3.3.2-2, MQTT-3.3.2-14].
func checkTopicName(b []byte) error {
	if bytes.IndexByte(b, '#') >= 0 || bytes.IndexByte(b, '+') >= 0 {
		return errWildcard
	}
	return nil
}

func varintSize(n uint32) int {
	switch {
	case n < 1<<7:
		return 1
	case n < 1<<14:
		return 2
	case n < 1<<21:
		return 3
	}
	return 4
}

func appendVarint(dst []byte, n uint32) []byte {
	for n >= 0x80 {
		dst = append(dst, byte(n)|0x80)
		n >>= 7
	}
	return append(dst, byte(n))
}

func appendUint16(dst []byte, n uint16) []byte { return binary.BigEndian.AppendUint16(dst, n) }

func appendUint32(dst []byte, n uint32) []byte { return binary.BigEndian.AppendUint32(dst, n) }

func appendString[T string | []byte](dst []byte, s T) []byte {
	return append(appendUint16(dst, uint16(len(s))), s...)
}
