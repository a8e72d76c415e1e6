package coap

import "time"

// timer calls fire once at its time, under its loop's mutex.
type timer struct {
	at   time.Duration // on the clock of the loop
	slot int           // place in the heap plus one, 0 = not running
	fire func()
}

// timers is a binary heap of running timers, soonest first. A heap, because
// what is set and stopped with every request (the empty acknowledgement) has
// its own queue, and the rest is rare.
type timers []*timer

// set starts a timer or moves a running one.
func (h *timers) set(t *timer, at time.Duration) {
	t.at = at
	if t.slot == 0 {
		*h = append(*h, t)
		t.slot = len(*h)
	}
	i := t.slot - 1
	h.up(i)
	h.down(t.slot - 1)
}

// stop ends a timer that may be running.
func (h *timers) stop(t *timer) {
	if t.slot == 0 {
		return
	}
	i, last := t.slot-1, len(*h)-1
	h.swap(i, last)
	(*h)[last] = nil
	*h = (*h)[:last]
	t.slot = 0
	if i < last {
		moved := (*h)[i]
		h.up(i)
		h.down(moved.slot - 1)
	}
}

// due takes out a timer whose time has come, nil when there is none.
func (h *timers) due(now time.Duration) *timer {
	if len(*h) == 0 || (*h)[0].at > now {
		return nil
	}
	t := (*h)[0]
	h.stop(t)
	return t
}

func (h timers) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].slot, h[j].slot = i+1, j+1
}

func (h timers) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if h[parent].at <= h[i].at {
			return
		}
		h.swap(i, parent)
		i = parent
	}
}

func (h timers) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(h) {
			return
		}
		if right := child + 1; right < len(h) && h[right].at < h[child].at {
			child = right
		}
		if h[i].at <= h[child].at {
			return
		}
		h.swap(i, child)
		i = child
	}
}
