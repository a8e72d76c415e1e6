package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Stored form of a Message, one for every store, queue and bridge. u is an unsigned varint, s and b are a u length and that many
// bytes, b? is a u length plus one where 0 means absent:
//
//	| version 1 or 2 | flags 1 | payload length u | time (zigzag) u | expires (zigzag) u, if flagged |
//	| topic s | client id s | username s | protocol s |
//	| properties, if flagged: format and marks 1 | content type s | response topic s | correlation b? | n u | n × (key s, value s) |
//	| payload, up to the end |
//
// The payload's length comes early, so that all strings are cut from one copy of what lies before the payload. A reader accepts only
// a record that is complete and has nothing behind it.
//
// Marks say of an empty content type or response topic that it is there; they are what version 2 has beyond version 1. A record says
// the lowest version that can express the message, so that an older program reads what it understands.
const (
	recordPlain  = 1
	recordMarked = 2

	recordQoS        = 0x03 // bits of the flags byte
	recordRetain     = 0x04
	recordProperties = 0x08
	recordExpires    = 0x10
	recordKnownFlags = recordQoS | recordRetain | recordProperties | recordExpires

	recordFormat             = 0x03 // bits of the format byte
	recordEmptyContentType   = 0x04
	recordEmptyResponseTopic = 0x08
)

var errRecordShort = errors.New("message record: ends too early")

// AppendMessage appends the stored form of m to dst and returns the extended slice. It keeps nothing of m.
func AppendMessage(dst []byte, m *Message) []byte {
	flags := byte(m.QoS) & recordQoS
	if m.Retain {
		flags |= recordRetain
	}
	if m.Properties != nil {
		flags |= recordProperties
	}
	if m.Expires != 0 {
		flags |= recordExpires
	}
	version := byte(recordPlain)
	if p := m.Properties; p != nil && p.marks() != 0 {
		version = recordMarked
	}
	dst = append(dst, version, flags)
	dst = binary.AppendUvarint(dst, uint64(len(m.Payload)))
	dst = binary.AppendVarint(dst, m.Time)
	if m.Expires != 0 {
		dst = binary.AppendVarint(dst, m.Expires)
	}
	dst = appendRecordString(dst, m.Topic)
	dst = appendRecordString(dst, m.ClientID)
	dst = appendRecordString(dst, m.Username)
	dst = appendRecordString(dst, m.Protocol)
	if m.Properties != nil {
		dst = appendRecordProperties(dst, m.Properties)
	}
	return append(dst, m.Payload...)
}

func appendRecordProperties(dst []byte, p *Properties) []byte {
	dst = append(dst, byte(p.PayloadFormat)|p.marks())
	dst = appendRecordString(dst, p.ContentType)
	dst = appendRecordString(dst, p.ResponseTopic)
	if p.CorrelationData == nil {
		dst = append(dst, 0)
	} else {
		dst = binary.AppendUvarint(dst, uint64(len(p.CorrelationData))+1)
		dst = append(dst, p.CorrelationData...)
	}
	dst = binary.AppendUvarint(dst, uint64(len(p.User)))
	for _, u := range p.User {
		dst = appendRecordString(dst, u.Key)
		dst = appendRecordString(dst, u.Value)
	}
	return dst
}

// marks are the bits of what is there and empty.
func (p *Properties) marks() (b byte) {
	if p.ContentType == "" && p.EmptyContentType {
		b |= recordEmptyContentType
	}
	if p.ResponseTopic == "" && p.EmptyResponseTopic {
		b |= recordEmptyResponseTopic
	}
	return b
}

func appendRecordString(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// ParseMessage reads what AppendMessage wrote; b must hold exactly one record. The result shares no memory with b. An empty payload
// is returned as nil. Any bytes are legal input; those that are no record give an error.
func ParseMessage(b []byte) (*Message, error) {
	if len(b) < 2 {
		return nil, errRecordShort
	}
	if b[0] != recordPlain && b[0] != recordMarked {
		return nil, fmt.Errorf("message record: unknown version %d", b[0])
	}
	flags := b[1]
	if flags&^recordKnownFlags != 0 || flags&recordQoS > 2 {
		return nil, fmt.Errorf("message record: unknown flags %#x", flags)
	}
	size, n := binary.Uvarint(b[2:])
	if n <= 0 || size > uint64(len(b)-2-n) {
		return nil, errRecordShort
	}
	head, payload := b[:len(b)-int(size)], b[len(b)-int(size):]
	r := recordReader{b: head, s: string(head), off: 2 + n}
	m := &Message{QoS: QoS(flags & recordQoS), Retain: flags&recordRetain != 0, Time: r.varint()}
	if flags&recordExpires != 0 {
		m.Expires = r.varint()
	}
	m.Topic, m.ClientID, m.Username, m.Protocol = r.str(), r.str(), r.str(), r.str()
	if flags&recordProperties != 0 {
		m.Properties = r.properties(b[0])
	}
	if r.err != nil {
		return nil, r.err
	}
	if r.off != len(head) {
		return nil, fmt.Errorf("message record: %d bytes too many", len(head)-r.off)
	}
	if size > 0 {
		m.Payload = append(make([]byte, 0, size), payload...)
	}
	return m, nil
}

// recordReader reads fields one by one. After the first error all reads return zero values.
type recordReader struct {
	b   []byte
	s   string // the same bytes; strings are cut from it
	off int
	err error
}

func (r *recordReader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.off = len(r.b)
}

func (r *recordReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b[r.off:])
	if n <= 0 {
		r.fail(errRecordShort)
		return 0
	}
	r.off += n
	return v
}

func (r *recordReader) varint() int64 {
	v, n := binary.Varint(r.b[r.off:])
	if n <= 0 {
		r.fail(errRecordShort)
		return 0
	}
	r.off += n
	return v
}

// span returns the bounds of the next n bytes.
func (r *recordReader) span(n uint64) (from, to int) {
	if n > uint64(len(r.b)-r.off) {
		r.fail(errRecordShort)
		return 0, 0
	}
	from = r.off
	r.off += int(n)
	return from, r.off
}

func (r *recordReader) str() string {
	from, to := r.span(r.uvarint())
	return r.s[from:to]
}

func (r *recordReader) properties(version byte) *Properties {
	from, to := r.span(1)
	if to == from {
		return nil
	}
	b := r.b[from]
	marks := b &^ recordFormat
	p := &Properties{
		PayloadFormat: PayloadFormat(b & recordFormat), EmptyContentType: marks&recordEmptyContentType != 0,
		EmptyResponseTopic: marks&recordEmptyResponseTopic != 0,
	}
	p.ContentType, p.ResponseTopic = r.str(), r.str()
	if p.PayloadFormat > FormatUTF8 || marks != p.marks() || marks != 0 && version == recordPlain {
		r.fail(fmt.Errorf("message record: unknown payload format %#x", b))
	}
	if n := r.uvarint(); n > 0 {
		from, to := r.span(n - 1)
		p.CorrelationData = append(make([]byte, 0, to-from), r.b[from:to]...)
	}
	n := r.uvarint()
	if n > uint64(len(r.b)-r.off)/2 { // a pair takes two bytes at least: no allocation that the record does not pay for
		r.fail(errRecordShort)
		return p
	}
	if n > 0 {
		p.User = make([]UserProperty, n)
	}
	for i := range p.User {
		p.User[i] = UserProperty{Key: r.str(), Value: r.str()}
	}
	return p
}
