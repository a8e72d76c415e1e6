package embedded

import (
	"bytes"

	"gantry/broker"
)

// values keeps, from Open to Load, the stored form of what Load returns. After that the log alone has it: a nil *values ignores all calls.
type values struct {
	sessions map[string]*sessionValues
	retained map[string][]byte
	delayed  map[uint64]delayedValue
}

type sessionValues struct {
	record []byte
	subs   map[string][]byte
}

func newValues() *values {
	return &values{sessions: make(map[string]*sessionValues), retained: make(map[string][]byte), delayed: make(map[uint64]delayedValue)}
}

func (v *values) of(id string) *sessionValues {
	s := v.sessions[id]
	if s == nil {
		s = &sessionValues{}
		v.sessions[id] = s
	}
	return s
}

func (v *values) session(id string, body []byte) {
	if v != nil {
		v.of(id).record = bytes.Clone(body)
	}
}

func (v *values) drop(id string) {
	if v != nil {
		delete(v.sessions, id)
	}
}

func (v *values) subscribe(id string, filter, body []byte) {
	if v == nil {
		return
	}
	s := v.of(id)
	if s.subs == nil {
		s.subs = make(map[string][]byte)
	}
	s.subs[string(filter)] = bytes.Clone(body)
}

func (v *values) unsubscribe(id string, filter []byte) {
	if v != nil && v.sessions[id] != nil {
		delete(v.sessions[id].subs, string(filter))
	}
}

func (v *values) retain(topic, msg []byte) {
	if v != nil {
		v.retained[string(topic)] = append(v.retained[string(topic)][:0], msg...)
	}
}

func (v *values) unretain(topic []byte) {
	if v != nil {
		delete(v.retained, string(topic))
	}
}

// state decodes everything for Load. What cannot be decoded is left out and counted.
func (v *values) state(s *state) (out *broker.State, lost int) {
	out = &broker.State{Sessions: make([]broker.StoredSession, 0, len(s.clients)), Retained: make([]*broker.Message, 0, len(v.retained))}
	for _, raw := range v.retained {
		m, err := broker.ParseMessage(raw)
		if err != nil {
			lost++
			continue
		}
		out.Retained = append(out.Retained, m)
	}
	for number, v := range v.delayed {
		m, err := broker.ParseMessage(v.message)
		if err != nil {
			lost++
			continue
		}
		out.Delayed = append(out.Delayed, broker.Delayed{Seq: number, Due: v.due, Message: m})
	}
	for id, c := range s.clients {
		stored, missing := c.stored(v.of(id))
		lost += missing
		if stored != nil {
			out.Sessions = append(out.Sessions, *stored)
		}
	}
	return out, lost
}

// stored is the session as Load returns it.
func (c *client) stored(v *sessionValues) (out *broker.StoredSession, lost int) {
	rec, err := decodeSession(v.record)
	if err != nil {
		return nil, 1
	}
	out = &broker.StoredSession{
		Record: *rec, Sent: c.sent, First: c.queue.first(), Last: c.queue.last(), Count: c.queue.count, Bytes: c.queue.stored,
	}
	for _, raw := range v.subs {
		sub, err := decodeSubscription(raw)
		if err != nil {
			lost++
			continue
		}
		out.Subscriptions = append(out.Subscriptions, sub)
	}
	for id := range c.inbound {
		out.Inbound = append(out.Inbound, id)
	}
	return out, lost
}
