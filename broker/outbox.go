package broker

import (
	"sort"
	"sync"
)

// entry is one message on its way to one session.
type entry struct {
	msg      *Message // nil once the peer confirmed it with PUBREC
	ids      []uint32
	share    string // filter of the shared subscription that it came by, "" for others
	seq      uint64 // 0 for QoS 0
	size     int32  // what it counts against the byte cap of the queue
	qos      QoS
	retain   bool
	retained bool // the message is kept alive by the retained tree anyway
	sent     bool // may have reached the peer: DUP when it goes out again
	released bool // PUBREC came, PUBREL is what remains
	counted  bool // holds a place of this connection's receive maximum
	done     bool // completed out of order; leaves when it is at the head
}

// cost is what the entry counts against the session's memory cap.
func (e *entry) cost() int {
	if e.msg == nil || e.retained {
		return entryOverhead / 2
	}
	return int(e.size)
}

// fifo is a queue of entries in one slice. One that has been long gives its
// memory back to all sessions when it becomes empty.
type fifo struct {
	buf  []entry
	head int
	slab *slab // of buf, when it was lent
}

const fifoKeep = 64 // entries of capacity an empty fifo may keep

func (f *fifo) len() int         { return len(f.buf) - f.head }
func (f *fifo) at(i int) *entry  { return &f.buf[f.head+i] }
func (f *fifo) clear()           { *f = fifo{} }
func (f *fifo) entries() []entry { return f.buf[f.head:] }

func (f *fifo) push(e entry) {
	if len(f.buf) == cap(f.buf) {
		f.makeRoom()
	}
	f.buf = append(f.buf, e)
}

// makeRoom moves the entries to the beginning or, when there are many, to a
// larger slab.
func (f *fifo) makeRoom() {
	switch {
	case f.head > len(f.buf)/2:
		n := copy(f.buf, f.buf[f.head:])
		clear(f.buf[n:])
		f.buf, f.head = f.buf[:n], 0
	case cap(f.buf) >= fifoKeep/2: // append doubles it up to there
		f.borrow(2 * cap(f.buf))
	}
}

// borrow moves the entries to a slab of at least n.
func (f *fifo) borrow(n int) {
	larger := lend(n)
	live := append(larger.buf, f.entries()...)
	clear(f.buf)
	larger.own = f.buf[:0]
	if f.slab != nil {
		larger.own = f.slab.own
		f.slab.giveBack()
	}
	f.buf, f.head, f.slab = live, 0, larger
}

func (f *fifo) pop() entry {
	e := f.buf[f.head]
	f.buf[f.head] = entry{}
	f.head++
	if f.head == len(f.buf) {
		f.reset()
	}
	return e
}

// reset runs when the last entry has gone.
func (f *fifo) reset() {
	f.head, f.buf = 0, f.buf[:0]
	if f.slab != nil {
		f.buf = f.slab.own
		f.slab.giveBack()
		f.slab = nil
	}
}

// slab is the memory of a long fifo. Most fifos are long for a moment only: one
// after the other can use the same memory, and an idle session holds none.
type slab struct {
	buf   []entry // empty, and zero up to its capacity, while it is not lent
	own   []entry // what the fifo had before, and goes back to
	class int
}

// giveBack ends the use of a slab, whose entries are all zero.
func (s *slab) giveBack() {
	s.own = nil
	if s.class < slabClasses {
		slabs[s.class].Put(s)
	}
}

// Of class i are slabs of smallestSlab << i entries. Larger ones than the
// classes have are not kept.
const (
	smallestSlab = 128
	slabClasses  = 6
)

var slabs [slabClasses]sync.Pool

// lend returns a slab of at least n entries.
func lend(n int) *slab {
	class := 0
	for smallestSlab<<class < n {
		class++
	}
	if class < slabClasses {
		if s, ok := slabs[class].Get().(*slab); ok {
			return s
		}
	}
	return &slab{buf: make([]entry, 0, smallestSlab<<class), class: class}
}

// insert puts an entry before those with a higher sequence number. Publishers
// that run at the same time may arrive out of order.
func (f *fifo) insert(e entry) {
	at := f.len()
	for i := f.len() - 1; i >= 0; i-- {
		if seq := f.at(i).seq; seq > e.seq {
			at = i
		} else if seq != 0 {
			break
		}
	}
	f.push(entry{})
	live := f.entries()
	copy(live[at+1:], live[at:])
	live[at] = e
}

// remove takes out the i-th entry.
func (f *fifo) remove(i int) entry {
	live := f.entries()
	e := live[i]
	copy(live[i:], live[i+1:])
	live[len(live)-1] = entry{}
	f.buf = f.buf[:len(f.buf)-1]
	if f.len() == 0 {
		f.reset()
	}
	return e
}

// packetIDs is how many packet identifiers there are: 1 to 65,535.
const packetIDs = 65535

// packetID derives the identifier of an entry from its sequence number. The
// window is shorter than the cycle, so no two entries in it share one, and
// after a restart an unacknowledged message goes out under the identifier
// that it had before [MQTT-4.4.0-1] without having to be stored.
func packetID(seq uint64) uint16 { return uint16((seq-1)%packetIDs) + 1 }

// window finds the entry that a peer's acknowledgement names, by the same
// derivation, in O(log n). The window is ordered by sequence number.
func windowIndex(w *fifo, id uint16) int {
	if w.len() == 0 || id == 0 {
		return -1
	}
	first := w.at(0).seq
	ahead := (uint64(id) + packetIDs - uint64(packetID(first))) % packetIDs
	seq := first + ahead
	i := sort.Search(w.len(), func(i int) bool { return w.at(i).seq >= seq })
	if i == w.len() || w.at(i).seq != seq || w.at(i).done {
		return -1
	}
	return i
}
