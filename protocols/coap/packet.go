package coap

import (
	"encoding/binary"
	"errors"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
)

// Request codes that go-coap does not name (RFC 8132).
const (
	codeFetch  codes.Code = 5
	codePatch  codes.Code = 6
	codeIPatch codes.Code = 7
)

const (
	headerSize    = 4
	payloadMarker = 0xFF
)

// Why a datagram is not a message. Only a format error has a header that can
// be answered.
var (
	errShort   = errors.New("datagram is shorter than a header")
	errVersion = errors.New("unknown protocol version")
	errFormat  = errors.New("message format error")
)

// token is the value that ties a response to its request; comparable.
type token struct {
	n uint8
	b [message.MaxTokenSize]byte
}

func makeToken(b []byte) (t token) {
	t.n = uint8(copy(t.b[:], b))
	return t
}

func (t *token) bytes() []byte { return t.b[:t.n] }

// packet is one decoded datagram. Options and payload alias it.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|Ver| T |  TKL  |      Code     |          Message ID           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| Token, options, 0xFF and payload                              |
type packet struct {
	typ       message.Type
	code      codes.Code
	mid       uint16
	token     token
	options   []message.Option
	payload   []byte
	size      int
	truncated bool // the datagram was larger than the receive buffer
}

// decode parses a datagram strictly (RFC 7252 section 3); go-coap's decoder
// takes an empty payload behind a marker and silently removes options of a
// wrong length, critical ones included. After errFormat the header fields
// are valid, so that the message can be rejected.
func (p *packet) decode(b []byte) error {
	p.options, p.payload, p.token = p.options[:0], nil, token{}
	p.size, p.truncated = len(b), false
	if len(b) < headerSize {
		return errShort
	}
	if b[0]>>6 != 1 {
		return errVersion
	}
	p.typ = message.Type(b[0] >> 4 & 3)
	p.code = codes.Code(b[1])
	p.mid = binary.BigEndian.Uint16(b[2:4])
	tkl := int(b[0] & 0x0F)
	if p.code == codes.Empty {
		if len(b) != headerSize || tkl != 0 {
			return errFormat
		}
		return nil
	}
	if tkl > message.MaxTokenSize || len(b) < headerSize+tkl {
		return errFormat
	}
	p.token = makeToken(b[headerSize : headerSize+tkl])
	return p.decodeOptions(b[headerSize+tkl:])
}

func (p *packet) decodeOptions(b []byte) error {
	number := 0
	for len(b) > 0 {
		if b[0] == payloadMarker {
			if len(b) == 1 {
				return errFormat
			}
			p.payload = b[1:]
			return nil
		}
		delta, length := int(b[0]>>4), int(b[0]&0x0F)
		b = b[1:]
		var ok bool
		if delta, b, ok = extended(delta, b); !ok {
			return errFormat
		}
		if length, b, ok = extended(length, b); !ok {
			return errFormat
		}
		number += delta
		if number > 0xFFFF || length > len(b) {
			return errFormat
		}
		p.options = append(p.options, message.Option{ID: message.OptionID(number), Value: b[:length:length]})
		b = b[length:]
	}
	return nil
}

// extended reads the extension of an option delta or length. 15 is reserved.
func extended(nibble int, b []byte) (value int, rest []byte, ok bool) {
	switch nibble {
	case message.ExtendOptionByteCode:
		if len(b) < 1 {
			return 0, nil, false
		}
		return int(b[0]) + message.ExtendOptionByteAddend, b[1:], true
	case message.ExtendOptionWordCode:
		if len(b) < 2 {
			return 0, nil, false
		}
		return int(binary.BigEndian.Uint16(b)) + message.ExtendOptionWordAddend, b[2:], true
	case message.ExtendOptionError:
		return 0, nil, false
	}
	return nibble, b, true
}

// class is the first digit of a code.
func class(c codes.Code) int { return int(c >> 5) }

func isRequest(c codes.Code) bool { return class(c) == 0 && c != codes.Empty }
