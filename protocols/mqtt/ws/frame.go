package ws

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"unicode/utf8"
)

// opcodes of RFC 6455 section 5.2.
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

// Codes of Close frames, RFC 6455 section 7.4.1.
const (
	codeNormal        = 1000
	codeProtocolError = 1002
	codeUnsupported   = 1003
	codeInvalidData   = 1007
	codeTooBig        = 1009
)

const (
	maxControl = 125 // payload of a control frame
	// maxClientHeader is two bytes, eight of length and four of mask.
	maxClientHeader = 14
)

// violation is why a connection must be closed, with the code for the peer.
type violation struct {
	code uint16
	text string
}

func (v *violation) Error() string {
	return fmt.Sprintf("WebSocket: %s (close code %d)", v.text, v.code)
}

func broken(format string, args ...any) error {
	return &violation{codeProtocolError, fmt.Sprintf(format, args...)}
}

// decoder turns the bytes of a client into those that its binary messages
// carry. It needs no buffer: a frame of any length passes through it in the
// pieces in which it arrives, and only a header or a control frame that is not
// complete waits inside.
type decoder struct {
	maxMessage uint64

	header [maxClientHeader]byte
	have   uint8  // bytes of header that have come
	op     byte   // of the frame whose payload is being read
	fin    bool   // that frame is the last of its message
	open   bool   // a message has begun and its last frame has not
	masked uint32 // the key, rotated to the next byte of payload
	left   uint64 // payload of the frame that has not come
	size   uint64 // of the message so far

	control []byte // payload of a control frame so far
	ping    []byte // payload of the last ping
	pinged  bool   // it is to be answered
	closed  bool   // a Close frame has come
	code    uint16 // its code, codeNormal when it has none
}

// decode takes the next bytes of the client, overwrites b with the payload of
// binary messages in them and returns how much that is. After an error or a
// Close frame the rest is dropped.
func (d *decoder) decode(b []byte) (n int, err error) {
	for i := 0; i < len(b); {
		if d.left == 0 {
			used, complete, err := d.takeHeader(b[i:])
			if err != nil {
				return n, err
			}
			if i += used; !complete || d.left > 0 {
				continue
			}
			if err := d.endFrame(); err != nil || d.closed {
				return n, err
			}
			continue
		}
		part := b[i : i+int(min(d.left, uint64(len(b)-i)))]
		i += len(part)
		d.left -= uint64(len(part))
		d.unmask(part)
		if d.op >= opClose {
			d.control = append(d.control, part...)
		} else {
			n += copy(b[n:], part)
		}
		if d.left == 0 {
			if err := d.endFrame(); err != nil || d.closed {
				return n, err
			}
		}
	}
	return n, nil
}

// takeHeader collects the header of a frame:
//
//	1      FIN, three reserved bits, opcode
//	1      MASK, length to 125, or 126 or 127 for
//	2 or 8   length
//	4      masking key
func (d *decoder) takeHeader(b []byte) (used int, complete bool, err error) {
	need := 2
	for {
		if have := int(d.have); have >= need {
			if need = headerSize(d.header[1]); have >= need {
				d.have = 0
				return used, true, d.beginFrame()
			}
		}
		if used == len(b) {
			return used, false, nil
		}
		n := copy(d.header[d.have:need], b[used:])
		used += n
		d.have += uint8(n)
		if d.have == 2 {
			if err := d.check(); err != nil {
				return used, false, err
			}
		}
	}
}

// headerSize is the size of a masked header by its second byte.
func headerSize(second byte) int {
	switch second & 0x7f {
	case 126:
		return 2 + 2 + 4
	case 127:
		return 2 + 8 + 4
	}
	return 2 + 4
}

// check refuses what the first two bytes of a header already tell.
func (d *decoder) check() error {
	first, length := d.header[0], d.header[1]&0x7f
	op, fin := first&0x0f, first&0x80 != 0
	switch {
	case first&0x70 != 0:
		return broken("a reserved bit is set and no extension was agreed on") // RFC 6455 5.2
	case d.header[1]&0x80 == 0:
		return broken("frame of a client is not masked") // 5.1
	case op == opText:
		return &violation{codeUnsupported, "text frame; MQTT travels in binary frames"} // [MQTT-6.0.0-1]
	case op > opBinary && op < opClose, op > opPong:
		return broken("opcode %#x has no meaning", op)
	case op >= opClose && (!fin || length > maxControl):
		return broken("control frame is fragmented or too long") // 5.5
	case op == opContinuation && !d.open:
		return broken("continuation of nothing") // 5.4
	case op == opBinary && d.open:
		return broken("message begins before the last one ended")
	}
	return nil
}

// beginFrame reads the header that is complete.
func (d *decoder) beginFrame() error {
	first, length := d.header[0], uint64(d.header[1]&0x7f)
	mask := d.header[2:]
	switch length {
	case 126:
		length, mask = uint64(binary.BigEndian.Uint16(mask)), mask[2:]
		if length < 126 {
			return broken("length is not written in the shortest form") // 5.2
		}
	case 127:
		length, mask = binary.BigEndian.Uint64(mask), mask[8:]
		if length <= 0xffff || length>>63 != 0 {
			return broken("length is not written in the shortest form, or is negative")
		}
	}
	d.op, d.fin, d.left = first&0x0f, first&0x80 != 0, length
	d.masked = binary.LittleEndian.Uint32(mask)
	if d.op >= opClose {
		return nil
	}
	if d.op == opBinary {
		d.size = 0
	}
	d.open = !d.fin
	if length > d.maxMessage || d.size+length > d.maxMessage {
		return &violation{codeTooBig, fmt.Sprintf("message is larger than %d bytes", d.maxMessage)}
	}
	d.size += length
	return nil
}

// endFrame acts on a control frame whose payload is complete. Of several pings
// the last is answered, RFC 6455 section 5.5.3; a pong needs nothing.
func (d *decoder) endFrame() error {
	payload := d.control
	d.control = nil // rare: an idle connection keeps no memory for it
	switch d.op {
	case opPing:
		d.pinged, d.ping = true, payload
	case opClose:
		return d.endClose(payload)
	}
	return nil
}

func (d *decoder) endClose(payload []byte) error {
	d.closed, d.code = true, codeNormal
	if len(payload) == 0 {
		return nil
	}
	if len(payload) == 1 {
		return broken("Close frame with half a code")
	}
	d.code = binary.BigEndian.Uint16(payload)
	if !validCode(d.code) {
		return broken("close code %d is not for frames", d.code)
	}
	if !utf8.Valid(payload[2:]) {
		return &violation{codeInvalidData, "reason of a Close frame is not UTF-8"}
	}
	return nil
}

// validCode: RFC 6455 section 7.4 and the registry at IANA.
func validCode(c uint16) bool {
	switch {
	case c >= 3000 && c <= 4999:
		return true
	case c >= 1000 && c <= 1014:
		return c < 1004 || c > 1006
	}
	return false
}

// unmask removes the mask from the next part of a payload.
func (d *decoder) unmask(b []byte) {
	key := d.masked
	if wide := uint64(key)<<32 | uint64(key); key != 0 {
		for len(b) >= 8 {
			binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^wide)
			b = b[8:]
		}
		for i := range b {
			b[i] ^= byte(key >> (8 * (i & 3)))
		}
		d.masked = bits.RotateLeft32(key, -8*(len(b)&3))
	}
}

// appendHeader appends the header of a frame of the server, which is not masked.
func appendHeader(b []byte, op byte, length int) []byte {
	b = append(b, 0x80|op)
	switch {
	case length < 126:
		return append(b, byte(length))
	case length <= 0xffff:
		return binary.BigEndian.AppendUint16(append(b, 126), uint16(length))
	}
	return binary.BigEndian.AppendUint64(append(b, 127), uint64(length))
}
