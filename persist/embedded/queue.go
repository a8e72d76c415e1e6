package embedded

import (
	"slices"
	"sort"

	"gantry/broker"
)

// entry is one message in one queue: 40 bytes. The message itself stays in the log.
type entry struct {
	seq    uint64 // in the queue
	rec    uint64 // log record that holds it
	rel    uint32 // rec minus the base of its segment
	offset uint32 // of the record in the segment, which is at most 1 GiB but for one oversized record at its start
	op     uint32 // offset of the enqueue op in the record
	stored uint32 // size by the rule of Message.StoredSize
	share  uint32 // bytes of the log that live because of it
	flags  uint32 // target flags and entryReleased
}

const entryReleased = 1 << 8

func (e *entry) qos() broker.QoS { return broker.QoS(e.flags & flagQoS) }
func (e *entry) retain() bool    { return e.flags&flagRetain != 0 }
func (e *entry) released() bool  { return e.flags&entryReleased != 0 }

const blockSize = 256

// queue is the index of one client's queue: blocks of at most blockSize entries, ascending by seq. Any change moves at most one block
// and the list of blocks, so that a queue of a million entries costs a commit no more than a short one. The zero value is empty.
type queue struct {
	blocks [][]entry
	count  int
	stored int64 // sums over the entries
	share  int64
}

// block returns the index of the block that holds seq, or where it belongs.
func (q *queue) block(seq uint64) int {
	n := len(q.blocks)
	if n == 0 || q.blocks[n-1][0].seq <= seq {
		return n - 1 // also -1 for an empty queue
	}
	if q.blocks[0][0].seq > seq {
		return 0
	}
	return sort.Search(n, func(i int) bool { return q.blocks[i][0].seq > seq }) - 1
}

func search(b []entry, seq uint64) (int, bool) {
	if n := len(b); n > 0 && b[n-1].seq < seq {
		return n, false
	}
	if len(b) > 0 && b[0].seq == seq {
		return 0, true
	}
	return slices.BinarySearchFunc(b, seq, func(e entry, s uint64) int {
		switch {
		case e.seq < s:
			return -1
		case e.seq > s:
			return 1
		}
		return 0
	})
}

// find returns the entry, valid until the next change, or nil.
func (q *queue) find(seq uint64) *entry {
	bi := q.block(seq)
	if bi < 0 {
		return nil
	}
	i, ok := search(q.blocks[bi], seq)
	if !ok {
		return nil
	}
	return &q.blocks[bi][i]
}

// put adds an entry or replaces the one of the same number.
func (q *queue) put(e entry) {
	q.stored += int64(e.stored)
	q.share += int64(e.share)
	bi := q.block(e.seq)
	if bi < 0 {
		q.blocks = append(q.blocks, []entry{e})
		q.count++
		return
	}
	b := q.blocks[bi]
	i, ok := search(b, e.seq)
	if ok {
		q.stored -= int64(b[i].stored)
		q.share -= int64(b[i].share)
		b[i] = e
		return
	}
	q.count++
	switch {
	case len(b) < blockSize:
		q.blocks[bi] = insert(b, i, e)
	case i == len(b):
		q.blocks = slices.Insert(q.blocks, bi+1, append(make([]entry, 0, blockSize), e))
	default:
		right := append(make([]entry, 0, blockSize), b[blockSize/2:]...)
		left := b[: blockSize/2 : blockSize]
		if i <= blockSize/2 {
			left = insert(left, i, e)
		} else {
			right = insert(right, i-blockSize/2, e)
		}
		q.blocks[bi] = left
		q.blocks = slices.Insert(q.blocks, bi+1, right)
	}
}

// insert grows a block by doubling, never beyond blockSize, so that short queues stay small and long ones waste nothing.
func insert(b []entry, i int, e entry) []entry {
	if len(b) == cap(b) {
		b = append(make([]entry, 0, min(2*len(b), blockSize)), b...)
	}
	return slices.Insert(b, i, e)
}

// remove takes an entry out and reports whether it was there.
func (q *queue) remove(seq uint64) bool {
	bi := q.block(seq)
	if bi < 0 {
		return false
	}
	b := q.blocks[bi]
	i, ok := search(b, seq)
	if !ok {
		return false
	}
	q.count--
	q.stored -= int64(b[i].stored)
	q.share -= int64(b[i].share)
	switch {
	case len(b) == 1 && bi == 0:
		q.blocks[0] = nil
		q.blocks = q.blocks[1:]
	case len(b) == 1:
		q.blocks = slices.Delete(q.blocks, bi, bi+1)
	case i == 0:
		q.blocks[bi] = b[1:]
	default:
		q.blocks[bi] = slices.Delete(b, i, i+1)
		q.merge(bi)
	}
	if q.count == 0 {
		q.blocks = nil
	}
	return true
}

// merge joins a block with the next one when both have become small, so that gaps do not keep memory.
func (q *queue) merge(bi int) {
	if bi+1 >= len(q.blocks) || len(q.blocks[bi])+len(q.blocks[bi+1]) > blockSize/2 {
		return
	}
	joined := make([]entry, 0, blockSize)
	q.blocks[bi] = append(append(joined, q.blocks[bi]...), q.blocks[bi+1]...)
	q.blocks = slices.Delete(q.blocks, bi+1, bi+2)
}

// page appends up to n entries with numbers >= from to dst.
func (q *queue) page(dst []entry, from uint64, n int) []entry {
	bi := max(q.block(from), 0)
	for ; bi < len(q.blocks) && n > 0; bi++ {
		b := q.blocks[bi]
		i, _ := search(b, from)
		m := min(n, len(b)-i)
		dst = append(dst, b[i:i+m]...)
		n -= m
	}
	return dst
}

func (q *queue) first() uint64 {
	if q.count == 0 {
		return 0
	}
	return q.blocks[0][0].seq
}

func (q *queue) last() uint64 {
	if q.count == 0 {
		return 0
	}
	b := q.blocks[len(q.blocks)-1]
	return b[len(b)-1].seq
}

// pick returns the numbers of the entries for which want is true.
func (q *queue) pick(want func(*entry) bool) []uint64 {
	var seqs []uint64
	for _, b := range q.blocks {
		for i := range b {
			if want(&b[i]) {
				seqs = append(seqs, b[i].seq)
			}
		}
	}
	return seqs
}
