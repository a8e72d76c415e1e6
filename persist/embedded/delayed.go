package embedded

import (
	"bytes"
	"encoding/binary"

	"gantry/broker"
)

// delayedValue is what Load returns of a delayed message.
type delayedValue struct {
	due     int64
	message []byte
}

func appendDelay(b []byte, message, number uint64, due int64) []byte {
	b = binary.AppendUvarint(binary.AppendUvarint(b, message), number)
	return binary.AppendVarint(b, due)
}

func (s *state) delay(r *record, o *op, at place) {
	_, msg, _, ok := r.message(o.index)
	if !ok {
		return
	}
	cur := s.delayed[o.num]
	if cur == nil {
		cur = new(item)
		s.delayed[o.num] = cur
	}
	s.set(cur, item{rec: at.rec, op: uint32(o.off), share: uint32(len(msg) + len(o.body) + opOverhead)})
	s.values.delay(o.num, o.due, msg)
}

func (s *state) delayDone(o *op) {
	if cur := s.delayed[o.num]; cur != nil {
		s.live -= int64(cur.share)
		delete(s.delayed, o.num)
		s.values.delayDone(o.num)
	}
}

func keepDelayed(e *encoder, r *record, o *op) {
	_, _, whole, ok := r.message(o.index)
	if !ok {
		return
	}
	e.body = appendDelay(e.body[:0], e.rawMessage(whole), o.num, o.due)
	e.put(broker.OpDelay, e.body)
}

func (v *values) delay(number uint64, due int64, msg []byte) {
	if v != nil {
		v.delayed[number] = delayedValue{due: due, message: bytes.Clone(msg)}
	}
}

func (v *values) delayDone(number uint64) {
	if v != nil {
		delete(v.delayed, number)
	}
}
