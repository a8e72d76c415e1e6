package coap

import (
	"sync"

	"gantry/broker"
)

// eventKind says what the broker reports.
type eventKind uint8

const (
	eventPublished  eventKind = iota + 1 // exchange, session, reason, packetID
	eventSubscribed                      // exchange, observation, reason
	eventWake                            // session: its outbox has something
	eventKick                            // session, reason
	eventReceived                        // session, packetID: QoS 2 may be completed
)

// event is something that the broker reports, from any goroutine.
type event struct {
	kind        eventKind
	exchange    *exchange
	session     *session
	observation *observation
	reason      broker.Reason
	packetID    uint16
}

// events is what waits for its loop. It needs no cap of its own: each pending
// exchange, subscription and QoS 2 delivery adds one event at most, each
// session one wake and one kick, and all of those are capped.
type events struct {
	mu     sync.Mutex
	list   []event
	spare  []event
	active bool          // a turn is on and will look again before it ends
	nudge  chan struct{} // capacity 1: wakes the worker
}

// post hands an event over. It never blocks.
func (e *events) post(ev event) {
	e.mu.Lock()
	e.list = append(e.list, ev)
	wake := !e.active
	e.mu.Unlock()
	if wake {
		e.wake()
	}
}

func (e *events) wake() {
	select {
	case e.nudge <- struct{}{}:
	default:
	}
}

// begin says that a turn is on: what is posted meanwhile needs no nudge.
func (e *events) begin() {
	e.mu.Lock()
	e.active = true
	e.mu.Unlock()
}

// take returns what was posted. When that is nothing the turn is over.
func (e *events) take() []event {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.list) == 0 {
		e.active = false
		return nil
	}
	taken := e.list
	e.list, e.spare = e.spare[:0], nil
	return taken
}

// keep gives the memory of a handled list back.
func (e *events) keep(list []event) {
	clear(list)
	e.mu.Lock()
	if e.spare == nil {
		e.spare = list[:0]
	}
	e.mu.Unlock()
}
