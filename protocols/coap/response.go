package coap

import (
	"fmt"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/udp/coder"
)

// maxReply is room for the largest message that is sent: one block, header,
// token and options.
const maxReply = maxBlockSize + 128

// maxDiagnostic bounds the text of an error response.
const maxDiagnostic = 64

// response is what a request is answered with, or a notification.
type response struct {
	code    codes.Code
	payload []byte
	text    string // diagnostic, for peers that have proven their address
	etag    []byte
	echo    []byte
	observe uint32
	maxAge  uint32
	size1   uint32
	size2   uint32
	format  int
	block1  block
	block2  block
	hasObserve,
	hasMaxAge,
	hasFormat bool
}

// header is what the message layer adds to a response.
type header struct {
	typ   message.Type
	mid   uint16
	token token
}

// encoder turns responses into datagrams. It reuses its memory: what encode
// returns is valid until the next call.
type encoder struct {
	options []message.Option
	values  [48]byte
	used    int
	out     [maxReply]byte
}

// encode builds the datagram of a response. Its options are added in the order
// of their numbers, as the format requires.
func (e *encoder) encode(h header, r *response) ([]byte, error) {
	e.options, e.used = e.options[:0], 0
	if len(r.etag) > 0 {
		e.add(message.ETag, r.etag)
	}
	if r.hasObserve {
		e.addUint(message.Observe, r.observe)
	}
	if r.hasFormat {
		e.addUint(message.ContentFormat, uint32(r.format))
	}
	if r.hasMaxAge {
		e.addUint(message.MaxAge, r.maxAge)
	}
	if r.block2.present {
		e.addUint(message.Block2, r.block2.value())
	}
	if r.block1.present {
		e.addUint(message.Block1, r.block1.value())
	}
	if r.size2 > 0 {
		e.addUint(message.Size2, r.size2)
	}
	if r.size1 > 0 {
		e.addUint(message.Size1, r.size1)
	}
	if len(r.echo) > 0 {
		e.add(optionEcho, r.echo)
	}
	n, err := coder.DefaultCoder.Encode(message.Message{
		Token: h.token.bytes(), Options: e.options, Code: r.code, Payload: r.payload,
		MessageID: int32(h.mid), Type: h.typ,
	}, e.out[:])
	if err != nil {
		return nil, fmt.Errorf("encode %v response: %w", r.code, err)
	}
	return e.out[:n], nil
}

func (e *encoder) add(id message.OptionID, value []byte) {
	e.options = append(e.options, message.Option{ID: id, Value: value})
}

// addUint encodes without leading zero bytes (RFC 7252 section 3.2).
func (e *encoder) addUint(id message.OptionID, v uint32) {
	start := e.used
	for shift := 24; shift >= 0; shift -= 8 {
		if b := byte(v >> shift); b != 0 || e.used > start {
			e.values[e.used] = b
			e.used++
		}
	}
	e.add(id, e.values[start:e.used])
}

// emptyMessage is an ACK or RST: a header without a token (RFC 7252 section 4.1).
func emptyMessage(typ message.Type, mid uint16) [headerSize]byte {
	return [headerSize]byte{1<<6 | byte(typ)<<4, byte(codes.Empty), byte(mid >> 8), byte(mid)}
}

// truncateText cuts a diagnostic text at its limit without splitting a rune.
func truncateText(s string) string {
	if len(s) <= maxDiagnostic {
		return s
	}
	cut := 0
	for i := range s {
		if i > maxDiagnostic {
			break
		}
		cut = i
	}
	return s[:cut]
}
