package embedded

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"gantry/broker"
	"gantry/persist/seglog"
)

// Payload of one log record. u is an unsigned varint, v a zigzag one, s a u length and that many bytes.
//
//	| version 1 or 2 | settled 8, little endian | n u | n × (stored size u, message s) | op ... up to the end |
//	op: | kind 1 | length u | body |
//
//	put session:     client s, user s, protocol s, expiry v (ns), detached v, next u, flags 1, if flagged: mountpoint s, if flagged: delay v and the will up to the end
//	delete session:  client s
//	subscribe:       client s, filter s, flags 1, id u
//	unsubscribe:     client s, filter s
//	retain:          message index u, topic s
//	unretain:        topic s
//	enqueue:         message index u, n u, n × (client s, seq u, flags 1, n u, n × id u, if flagged: shared subscription s)
//	dequeue, released, sent:  client s, seq u
//	inbound, inbound done:    client s, packet id u
//	delay:           message index u, number u, due v (Unix ms)       version 2
//	delay done:      number u                                         version 2
//	born:            client s, number of the log record that created the session u
//	void:            from u, to u (record numbers)
//
// settled says that all records below it had been acknowledged, or reported as failed, when this one was appended: see hole. A message
// that several ops of a batch use is stored once. A record says the lowest version that has all of its ops: a program that does not know
// one of them must not start, for it would leave out the whole record; and one that knows all may, also an older one.
const (
	recordVersion = 2 // the newest
	plainVersion  = 1 // without delayed messages

	settledOffset = 1
	tableOffset   = settledOffset + 8

	// Kinds beside those of broker.Op. opBorn is written by the cleaner, see client.born; opVoid by recovery, see hole.
	opBorn = broker.OpKind(64)
	opVoid = broker.OpKind(65)

	flagQoS       = 0x03 // of subscriptions and targets
	flagRetain    = 0x04 // target: RETAIN is set; subscription: retain as published
	flagNoLocal   = 0x08
	flagShare     = 0x08 // target: it came by a shared subscription
	flagWill      = 0x01 // session: a will follows
	flagMount     = 0x02 // session: a mountpoint follows
	handlingShift = 4    // subscription: two bits of retain handling
)

var errShort = errors.New("record ends too early")

// encoder builds one record. The zero value is ready; reset makes it ready again.
type encoder struct {
	buf      []byte // the record
	ops      []byte
	body     []byte
	messages []*broker.Message
	raw      [][]byte // messages as stored, with their size in front, when the cleaner encodes
	delays   bool     // it has ops of delayed messages
	grows    bool     // the batch adds something: refused when the store is full
}

func (e *encoder) reset() {
	clear(e.messages)
	clear(e.raw)
	*e = encoder{buf: e.buf[:0], ops: e.ops[:0], body: e.body[:0], messages: e.messages[:0], raw: e.raw[:0]}
}

// size is what the finished record takes in the log.
func (e *encoder) size() int { return int(seglog.FrameSize(len(e.buf))) }

// batch encodes a batch. It fails for an op without what its kind needs.
func (e *encoder) batch(b *broker.Batch) ([]byte, error) {
	for i := range b.Ops {
		op := &b.Ops[i]
		if err := e.op(op); err != nil {
			return nil, fmt.Errorf("op %d: %w", i, err)
		}
	}
	return e.finish(), nil
}

// finish puts the message table in front of the ops.
func (e *encoder) finish() []byte {
	version := byte(plainVersion)
	if e.delays {
		version = recordVersion
	}
	b := append(e.buf[:0], version)
	b = binary.LittleEndian.AppendUint64(b, 0) // settle fills it in
	b = binary.AppendUvarint(b, uint64(len(e.messages)+len(e.raw)))
	for _, m := range e.messages {
		e.body = broker.AppendMessage(e.body[:0], m)
		b = binary.AppendUvarint(b, uint64(m.StoredSize()))
		b = binary.AppendUvarint(b, uint64(len(e.body)))
		b = append(b, e.body...)
	}
	for _, r := range e.raw {
		b = append(b, r...)
	}
	e.buf = append(b, e.ops...)
	return e.buf
}

func (e *encoder) op(op *broker.Op) error {
	b, err := e.opBody(e.body[:0], op)
	if err != nil {
		return err
	}
	e.body = b
	e.put(op.Kind, b)
	return nil
}

func (e *encoder) put(kind broker.OpKind, body []byte) {
	e.delays = e.delays || kind == broker.OpDelay || kind == broker.OpDelayDone
	e.ops = append(e.ops, byte(kind))
	e.ops = binary.AppendUvarint(e.ops, uint64(len(body)))
	e.ops = append(e.ops, body...)
}

func (e *encoder) opBody(b []byte, op *broker.Op) ([]byte, error) {
	switch op.Kind {
	case broker.OpPutSession:
		if op.Session == nil {
			return nil, errors.New("put without a session")
		}
		e.grows = true
		return appendSession(b, op.Session), nil
	case broker.OpDeleteSession:
		return appendString(b, op.ClientID), nil
	case broker.OpSubscribe:
		if op.Subscription == nil {
			return nil, errors.New("subscribe without a subscription")
		}
		e.grows = true
		return appendSubscription(appendString(b, op.ClientID), op.Subscription), nil
	case broker.OpUnsubscribe:
		return appendString(appendString(b, op.ClientID), op.Topic), nil
	case broker.OpUnretain:
		return appendString(b, op.Topic), nil
	case broker.OpRetain, broker.OpEnqueue:
		if op.Message == nil {
			return nil, errors.New("message is missing")
		}
		e.grows = true
		b = binary.AppendUvarint(b, e.message(op.Message))
		if op.Kind == broker.OpRetain {
			return appendString(b, op.Message.Topic), nil
		}
		return appendTargets(b, op.Targets), nil
	case broker.OpDelay:
		if op.Message == nil {
			return nil, errors.New("message is missing")
		}
		e.grows = true
		return appendDelay(b, e.message(op.Message), op.Seq, op.Due), nil
	case broker.OpDelayDone:
		return binary.AppendUvarint(b, op.Seq), nil
	case broker.OpDequeue, broker.OpReleased, broker.OpSent:
		return binary.AppendUvarint(appendString(b, op.ClientID), op.Seq), nil
	case broker.OpInbound, broker.OpInboundDone:
		return binary.AppendUvarint(appendString(b, op.ClientID), uint64(op.PacketID)), nil
	}
	return nil, fmt.Errorf("unknown kind %d", op.Kind)
}

// settle completes a finished record at the moment it is appended.
func (e *encoder) settle(below uint64) { binary.LittleEndian.PutUint64(e.buf[settledOffset:], below) }

func settled(b []byte) uint64 {
	if len(b) < tableOffset {
		return 0
	}
	return binary.LittleEndian.Uint64(b[settledOffset:])
}

func (e *encoder) putVoid(from, to uint64) {
	e.body = binary.AppendUvarint(binary.AppendUvarint(e.body[:0], from), to)
	e.put(opVoid, e.body)
}

func (e *encoder) putBorn(client string, rec uint64) {
	e.body = binary.AppendUvarint(appendString(e.body[:0], client), rec)
	e.put(opBorn, e.body)
}

// putNumber adds a dequeue, released, sent, inbound or inbound done.
func (e *encoder) putNumber(kind broker.OpKind, client []byte, num uint64) {
	e.body = binary.AppendUvarint(appendBytes(e.body[:0], client), num)
	e.put(kind, e.body)
}

// message returns the index of m in the table. Ops that share a message are neighbours, so only the last few are compared.
func (e *encoder) message(m *broker.Message) uint64 {
	for i := len(e.messages) - 1; i >= max(0, len(e.messages)-4); i-- {
		if e.messages[i] == m {
			return uint64(i)
		}
	}
	e.messages = append(e.messages, m)
	return uint64(len(e.messages) - 1)
}

// rawMessage is message for a table entry of another record.
func (e *encoder) rawMessage(whole []byte) uint64 {
	for i := len(e.raw) - 1; i >= max(0, len(e.raw)-4); i-- {
		if &e.raw[i][0] == &whole[0] {
			return uint64(i)
		}
	}
	e.raw = append(e.raw, whole)
	return uint64(len(e.raw) - 1)
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendBytes(b, s []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendSession(b []byte, s *broker.SessionRecord) []byte {
	b = appendString(b, s.ClientID)
	b = appendString(b, s.Username)
	b = appendString(b, s.Protocol)
	b = binary.AppendVarint(b, int64(s.Expiry))
	b = binary.AppendVarint(b, s.DetachedAt)
	b = binary.AppendUvarint(b, s.NextSeq)
	will := s.Will != nil && s.Will.Message != nil
	flags := byte(0)
	if will {
		flags |= flagWill
	}
	if s.Mount != "" {
		flags |= flagMount
	}
	b = append(b, flags)
	if s.Mount != "" {
		b = appendString(b, s.Mount)
	}
	if !will {
		return b
	}
	b = binary.AppendVarint(b, int64(s.Will.Delay))
	return broker.AppendMessage(b, s.Will.Message)
}

func appendSubscription(b []byte, s *broker.Subscription) []byte {
	flags := byte(s.QoS)&flagQoS | s.RetainHandling&3<<handlingShift
	if s.RetainAsPublished {
		flags |= flagRetain
	}
	if s.NoLocal {
		flags |= flagNoLocal
	}
	b = append(appendString(b, s.Filter), flags)
	return binary.AppendUvarint(b, uint64(s.ID))
}

func appendTargets(b []byte, targets []broker.Target) []byte {
	b = binary.AppendUvarint(b, uint64(len(targets)))
	for i := range targets {
		t := &targets[i]
		flags := byte(t.QoS) & flagQoS
		if t.Retain {
			flags |= flagRetain
		}
		if t.Share != "" {
			flags |= flagShare
		}
		b = appendString(b, t.ClientID)
		b = append(binary.AppendUvarint(b, t.Seq), flags)
		b = binary.AppendUvarint(b, uint64(len(t.SubscriptionIDs)))
		for _, id := range t.SubscriptionIDs {
			b = binary.AppendUvarint(b, uint64(id))
		}
		if t.Share != "" {
			b = appendString(b, t.Share)
		}
	}
	return b
}

// decodeSession reads the body of a put session; the result shares no memory with b.
func decodeSession(b []byte) (*broker.SessionRecord, error) {
	f := fields{b: b}
	s := &broker.SessionRecord{ClientID: string(f.bytes()), Username: string(f.bytes()), Protocol: string(f.bytes())}
	s.Expiry = time.Duration(f.varint())
	s.DetachedAt = f.varint()
	s.NextSeq = f.uvarint()
	flags := f.byte()
	if flags&^(flagWill|flagMount) != 0 {
		return nil, fmt.Errorf("unknown flags %#x", flags)
	}
	if flags&flagMount != 0 {
		s.Mount = string(f.bytes())
	}
	if flags&flagWill != 0 {
		s.Will = &broker.Will{Delay: time.Duration(f.varint())}
		m, err := broker.ParseMessage(f.rest())
		if err != nil {
			return nil, fmt.Errorf("will: %w", err)
		}
		s.Will.Message = m
	}
	return s, f.end()
}

// decodeSubscription reads the body of a subscribe; the result shares no memory with b.
func decodeSubscription(b []byte) (broker.Subscription, error) {
	f := fields{b: b}
	f.bytes()
	s := broker.Subscription{Filter: string(f.bytes())}
	flags := f.byte()
	s.QoS = broker.QoS(flags & flagQoS)
	s.RetainAsPublished = flags&flagRetain != 0
	s.NoLocal = flags&flagNoLocal != 0
	s.RetainHandling = flags >> handlingShift & 3
	s.ID = uint32(f.uvarint())
	return s, f.end()
}
