package bridge

import (
	"encoding/binary"
	"errors"
	"fmt"

	"gantry/broker"
)

// Stored form of a bridge record; u is an unsigned varint, s a u length and
// that many bytes:
//
//	| version 1 | flags 1 | time (zigzag) u | topic s | key s, if flagged |
//	| n u | n × (name s, value s) | message s | value, up to the end |
//
// Flags: bits 0-1 QoS, bit 2 key, bit 3 the value is an envelope. Message is
// the stored form of the broker's message without its payload. Everything was
// rendered when the record was queued, and a sink needs only slices of it.
const (
	recordVersion = 1

	flagQoS      = 0x03
	flagKey      = 0x04
	flagEnvelope = 0x08
	flagsKnown   = flagQoS | flagKey | flagEnvelope
)

var errRecordShort = errors.New("bridge record: ends too early")

// Record is what a sink sends. The slices of a decoded Record belong to the
// bytes it was decoded from.
type Record struct {
	Topic   []byte // at the other side
	Key     []byte // nil when there is none
	Headers []RecordHeader
	Format  Format
	QoS     broker.QoS // to send with, for sinks that have it
	Time    int64      // when the broker accepted the message, Unix milliseconds
	Value   []byte

	message []byte // the broker's message without payload, stored form
}

// RecordHeader is one header of a Record.
type RecordHeader struct{ Name, Value []byte }

// Decode fills r from the stored form. The slices of r alias b, and the memory
// of r.Headers is used again. Any bytes are legal input; those that are no
// record give an error.
func (r *Record) Decode(b []byte) error {
	if len(b) < 2 {
		return errRecordShort
	}
	if b[0] != recordVersion {
		return fmt.Errorf("bridge record: unknown version %d", b[0])
	}
	flags := b[1]
	if flags&^flagsKnown != 0 || flags&flagQoS > 2 {
		return fmt.Errorf("bridge record: unknown flags %#x", flags)
	}
	d := decoder{b: b[2:]}
	*r = Record{Headers: r.Headers[:0], QoS: broker.QoS(flags & flagQoS), Format: Raw, Time: d.varint(), Topic: d.bytes()}
	if flags&flagEnvelope != 0 {
		r.Format = Envelope
	}
	if flags&flagKey != 0 {
		r.Key = d.bytes()
	}
	for n := d.uvarint(); n > 0 && !d.short; n-- {
		r.Headers = append(r.Headers, RecordHeader{Name: d.bytes(), Value: d.bytes()})
	}
	r.message = d.bytes()
	r.Value = d.b
	if d.short {
		return errRecordShort
	}
	return nil
}

// Message returns the message as the broker had it, with a payload of its own.
// The payload of an Envelope is the JSON object.
func (r *Record) Message() (*broker.Message, error) {
	m, err := broker.ParseMessage(r.message)
	if err != nil {
		return nil, err
	}
	m.Payload = append([]byte(nil), r.Value...)
	return m, nil
}

// decoder cuts fields from the front of b. After the first field that is not
// there, short is set and all fields are empty.
type decoder struct {
	b     []byte
	short bool
}

func (d *decoder) fail() {
	d.b, d.short = nil, true
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	field := d.b[:n:n]
	d.b = d.b[n:]
	return field
}

func appendBytes(dst, b []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	return append(dst, b...)
}

// encoder renders messages into records. It keeps its buffers between calls and
// is for one goroutine at a time.
type encoder struct {
	rec  []byte // the record under construction
	text []byte // one rendered template or the stored message
	bare broker.Message
}

// encode returns the stored form of m for route r, valid until the next call.
func (e *encoder) encode(r *Route, node string, m *broker.Message) []byte {
	flags := byte(min(r.QoS, m.QoS))
	if r.Format == Envelope {
		flags |= flagEnvelope
	}
	e.rec = append(e.rec[:0], recordVersion, flags)
	e.rec = binary.AppendVarint(e.rec, m.Time)
	e.rendered(r.Topic, m)
	if e.text = r.Key.Append(e.text[:0], m); len(e.text) > 0 {
		e.rec[1] |= flagKey
		e.rec = appendBytes(e.rec, e.text)
	}
	e.headers(r.Headers, m)
	e.bare = *m
	e.bare.Payload = nil
	e.text = broker.AppendMessage(e.text[:0], &e.bare)
	e.bare = broker.Message{}
	e.rec = appendBytes(e.rec, e.text)
	if r.Format == Envelope {
		e.rec = appendEnvelope(e.rec, m, node)
	} else {
		e.rec = append(e.rec, m.Payload...)
	}
	return e.rec
}

func (e *encoder) rendered(t *Template, m *broker.Message) {
	e.text = t.Append(e.text[:0], m)
	e.rec = appendBytes(e.rec, e.text)
}

func (e *encoder) headers(headers []Header, m *broker.Message) {
	count := len(e.rec)
	e.rec = append(e.rec, 0)
	n := 0
	for _, h := range headers {
		if e.text = h.Value.Append(e.text[:0], m); len(e.text) == 0 {
			continue
		}
		n++
		e.rec = binary.AppendUvarint(e.rec, uint64(len(h.Name)))
		e.rec = append(e.rec, h.Name...)
		e.rec = appendBytes(e.rec, e.text)
	}
	e.rec[count] = byte(n) // at most maxHeaders: a varint of one byte
}
