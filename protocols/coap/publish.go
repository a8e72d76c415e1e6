package coap

import (
	"time"

	"github.com/plgd-dev/go-coap/v3/message/codes"

	"gantry/broker"
)

// publish serves PUT and POST /ps/{topic}.
func (l *loop) publish(ex *exchange, req *request) {
	topic, err := topicName(req.path[1:])
	if err != nil {
		l.respond(ex, refusal(codes.BadRequest, err.Error()))
		return
	}
	q, err := parseParams(req.query)
	if err != nil {
		l.respond(ex, refusal(codes.BadRequest, err.Error()))
		return
	}
	s, reason := l.sessionFor(ex.peer, &q)
	if s == nil {
		l.respond(ex, refusal(connectCode(reason), reason.String()))
		return
	}
	payload := req.packet.payload
	if len(payload) > l.cfg.MaxBody { // of one datagram or block: receiveBlock sees to their sum
		l.respond(ex, l.tooLarge())
		return
	}
	if req.block1.present {
		var whole bool
		if payload, whole = l.receiveBlock(ex, req); !whole {
			return
		}
	} else {
		payload = append([]byte(nil), payload...) // the datagram's memory is reused
	}
	l.wait(ex)
	s.publish(l, ex, newMessage(topic, payload, req.format, &q, ex.con))
}

func newMessage(topic string, payload []byte, format int, q *params, con bool) *broker.Message {
	m := &broker.Message{Topic: topic, Payload: payload, QoS: q.level(con), Retain: q.retain}
	if format != noFormat {
		m.Properties = &broker.Properties{ContentType: contentType(format)}
	}
	if q.expiry > 0 {
		m.Expires = time.Now().Add(q.expiry).UnixMilli()
	}
	return m
}

// publish hands a message to the broker; its outcome comes back as an event.
func (s *session) publish(l *loop, ex *exchange, m *broker.Message) {
	ev := event{kind: eventPublished, exchange: ex, session: s}
	if m.QoS == 2 {
		s.publishID++
		if s.publishID == 0 {
			s.publishID = 1
		}
		ev.packetID = s.publishID
	}
	s.pending++
	s.handle.Publish(broker.NoWait, m, ev.packetID, func(r broker.Reason) {
		ev.reason = r
		l.events.post(ev)
	})
}

func (l *loop) published(e *event) {
	e.session.pending--
	if !e.reason.OK() {
		l.fail(e.exchange, e.reason)
		return
	}
	if e.packetID != 0 {
		// The message layer has dealt with duplicates: the exchange of PUBREC
		// and PUBREL can end at once.
		e.session.handle.Release(e.packetID, func(broker.Reason) {})
	}
	l.respond(e.exchange, &response{code: codes.Changed})
}
