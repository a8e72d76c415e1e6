package coap

import (
	"time"

	"github.com/plgd-dev/go-coap/v3/message/codes"
)

// How long a message id of a peer is remembered (RFC 7252 section 4.8.2).
const exchangeLifetime = 247 * time.Second

// dedupEntries is how many requests of a peer are remembered. A conforming
// client has one outstanding; 64 cover a busy one that reorders.
const dedupEntries = 64

// maxRemembered is the longest reply that is kept for duplicates. Longer ones
// answer a GET, which may as well be done again; a publish gets none of them.
const maxRemembered = 128

// exchange is one request and what became of it. It stays behind in its
// peer's dedup ring, so that a duplicate gets the same answer.
type exchange struct {
	peer *peer
	at   time.Duration // arrival
	size int           // of the request, bounds what an unproven peer may get

	token    token
	mid      uint16
	con      bool
	suppress uint8 // No-Response: classes of responses the client does not want

	waiting bool // for the broker: counted as pending
	acked   bool // the empty ACK went out, the response comes separately
	done    bool
	keep    bool   // remember the reply whatever its size
	echoed  block  // Block1 of the request, repeated in the response
	reply   []byte // resent to duplicates; nil = nothing to resend

	first *firstRepresentation // of a registration that waits for the broker

	prev, next *exchange // in the queue for empty acknowledgements
}

// suppressed reports whether the client asked not to get responses of this
// class (RFC 7967 section 2.1).
func (ex *exchange) suppressed(c codes.Code) bool {
	return ex.suppress != 0 && ex.suppress&(1<<(class(c)-1)) != 0
}

// dedup is a ring of a peer's recent exchanges, grown as needed. The message
// ids have their own slice because every request searches it.
type dedup struct {
	mids []uint16
	ring []*exchange
	next int // the oldest
}

// find returns the exchange that a request with these features repeats. A
// different token means a new request: a busy client reuses message ids within
// their lifetime, and its data must not be taken for a duplicate.
func (d *dedup) find(mid uint16, t token, con bool, now time.Duration) *exchange {
	for i, m := range d.mids {
		if m != mid {
			continue
		}
		if ex := d.ring[i]; ex.token == t && ex.con == con && now-ex.at < exchangeLifetime {
			return ex
		}
	}
	return nil
}

// add remembers an exchange. The oldest finished one makes room; there is
// always one, because a peer may have fewer pending than the ring has places.
func (d *dedup) add(ex *exchange, limit int) {
	if n := len(d.ring); n > 0 && (n >= limit || ex.at-d.ring[d.next].at >= exchangeLifetime) {
		for range n {
			i := d.next
			d.next = (d.next + 1) % n
			if d.ring[i].waiting {
				continue
			}
			d.mids[i], d.ring[i] = ex.mid, ex
			return
		}
	}
	d.mids = append(d.mids, ex.mid)
	d.ring = append(d.ring, ex)
}

// remove forgets an exchange, so that a repetition is handled anew.
func (d *dedup) remove(ex *exchange) {
	for i := range d.ring {
		if d.ring[i] == ex {
			d.mids = append(d.mids[:i], d.mids[i+1:]...)
			d.ring = append(d.ring[:i], d.ring[i+1:]...)
			if d.next > i {
				d.next--
			}
			if d.next >= len(d.ring) {
				d.next = 0
			}
			return
		}
	}
}

// ackQueue holds the confirmable exchanges that wait for the broker, oldest
// first. All of them have the same patience, so the head is due first.
type ackQueue struct{ head, tail *exchange }

func (q *ackQueue) push(ex *exchange) {
	ex.prev, ex.next = q.tail, nil
	if q.tail != nil {
		q.tail.next = ex
	} else {
		q.head = ex
	}
	q.tail = ex
}

// remove takes an exchange out; one that is not in the queue is left alone.
func (q *ackQueue) remove(ex *exchange) {
	if ex.prev == nil && q.head != ex {
		return
	}
	if ex.prev != nil {
		ex.prev.next = ex.next
	} else {
		q.head = ex.next
	}
	if ex.next != nil {
		ex.next.prev = ex.prev
	} else {
		q.tail = ex.prev
	}
	ex.prev, ex.next = nil, nil
}
