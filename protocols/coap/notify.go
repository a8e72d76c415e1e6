package coap

import (
	"slices"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"

	"gantry/broker"
)

const (
	// A notification that need not be confirmable is made so after this many
	// of them, or this much time, so that a client that is gone is noticed
	// (RFC 7641 section 4.5).
	confirmEvery    = 32
	confirmInterval = 60 * time.Second
	// deliveriesPerTurn bounds what one session sends before others get their
	// turn.
	deliveriesPerTurn = 256
)

// flight is one delivery that its observers have not all acknowledged yet.
type flight struct {
	session  *session
	delivery broker.Delivery
	left     int // acknowledgements and fetches still to come
}

// deliver sends what the session's outbox holds. It stops at a confirmable
// notification until that is acknowledged: a client drops a notification that
// is older than the last one it got, so the next one must not overtake it.
func (l *loop) deliver(s *session) {
	for sent := 0; !s.closed && s.held == 0 && s.registering == 0; sent++ {
		if len(s.backlog) == 0 {
			s.backlog = s.handle.Next(s.buffer[:0])
			if len(s.backlog) == 0 {
				return
			}
		}
		if sent == deliveriesPerTurn {
			if s.woken.CompareAndSwap(false, true) {
				l.events.post(event{kind: eventWake, session: s})
			}
			return
		}
		d := s.backlog[0]
		s.backlog[0] = broker.Delivery{}
		s.backlog = s.backlog[1:]
		l.notify(s, d)
	}
}

// notify sends one delivery to the observations that it is for.
func (l *loop) notify(s *session, d broker.Delivery) {
	f := &flight{session: s, delivery: d, left: 1}
	s.held++
	if !d.Release {
		for _, o := range slices.Clone(s.observations) {
			if o.active && slices.Contains(d.SubscriptionIDs, o.id) {
				l.notifyOne(o, f)
			}
		}
	}
	l.landed(f)
}

// landed takes one off what a delivery waits for. The last one completes it
// towards the broker.
func (l *loop) landed(f *flight) {
	f.left--
	if f.left > 0 {
		return
	}
	s := f.session
	s.held--
	if s.closed || f.delivery.PacketID == 0 {
		return
	}
	l.complete(s, &f.delivery)
}

// complete acknowledges a delivery. For QoS 2 the client's one acknowledgement
// stands for PUBREC and PUBCOMP.
func (l *loop) complete(s *session, d *broker.Delivery) {
	if d.QoS < 2 {
		s.handle.Acked(d.PacketID)
		return
	}
	id := d.PacketID
	s.handle.Received(id, false, func(broker.Reason) {
		l.events.post(event{kind: eventReceived, session: s, packetID: id})
	})
}

func (l *loop) received(s *session, packetID uint16) {
	if !s.closed {
		s.handle.Acked(packetID)
		l.deliver(s)
	}
}

// notifyOne sends a delivery to one observer: QoS 0 non-confirmable, with a
// confirmable one now and then, QoS 1 and 2 confirmable.
func (l *loop) notifyOne(o *observation, f *flight) {
	m := f.delivery.Message
	p := o.session.peer
	r := describe(m)
	r.observe, r.hasObserve = o.nextSequence(l.now), true
	r.payload = m.Payload
	if len(m.Payload) > maxBlockSize {
		l.pinBody(p, o, m, f, r)
	}
	o.unchecked++
	con := f.delivery.QoS > 0 || o.unchecked >= confirmEvery || l.now-o.checkedAt >= confirmInterval
	h := header{typ: message.NonConfirmable, mid: p.nextMID(), token: o.token}
	if con {
		h.typ = message.Confirmable
	}
	data, err := l.enc.encode(h, r)
	if err != nil {
		l.metrics.drop(dropEncode)
		l.log.Error("encode notification, dropped", "topic", m.Topic, "err", err)
		return
	}
	l.metrics.notifications.Inc()
	if !con {
		p.recent.add(h.mid, o)
		l.send(p, data)
		return
	}
	f.left++
	o.unchecked, o.checkedAt = 0, l.now
	var t *transmission
	t = l.transmit(p, h.mid, slices.Clone(data), func(out outcome) { l.notified(o, t, f, out) })
	o.transfers = append(o.transfers, t)
}

// notified is the outcome of a confirmable notification.
func (l *loop) notified(o *observation, t *transmission, f *flight, out outcome) {
	if i := slices.Index(o.transfers, t); i >= 0 {
		o.transfers = slices.Delete(o.transfers, i, i+1)
	}
	switch out {
	case outcomeReset: // the client is not interested any more
		l.removeObservation(o)
	case outcomeTimeout:
		l.endSession(o.session, closeUnreachable)
	case outcomeAcked:
		o.checkedAt = l.now
	}
	l.landed(f)
	l.deliver(f.session)
}

// recentNotifications remembers which observation the last non-confirmable
// notifications belonged to, so that a RST to one of them can end it.
type recentNotifications struct {
	list []recentNotification
	next int
}

type recentNotification struct {
	mid         uint16
	observation *observation
}

func (r *recentNotifications) add(mid uint16, o *observation) {
	const remembered = 32
	if len(r.list) < remembered {
		r.list = append(r.list, recentNotification{mid, o})
		return
	}
	r.list[r.next] = recentNotification{mid, o}
	r.next = (r.next + 1) % remembered
}

// take returns the observation that a message id belongs to, nil if none.
func (r *recentNotifications) take(mid uint16) *observation {
	for i := range r.list {
		if n := &r.list[i]; n.mid == mid && n.observation != nil {
			o := n.observation
			n.observation = nil
			return o
		}
	}
	return nil
}
