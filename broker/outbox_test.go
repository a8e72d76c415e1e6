package broker

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestFifoIsASlice compares fifos that lend memory from each other with slices.
func TestFifoIsASlice(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	fifos := make([]fifo, 4)
	want := make([][]uint64, len(fifos))
	lent := 0
	for seq := uint64(1); seq < 200_000; seq++ {
		i := rnd.IntN(len(fifos))
		f, w := &fifos[i], &want[i]
		switch op := rnd.IntN(100); {
		case op < 50:
			f.push(entry{seq: seq})
			*w = append(*w, seq)
		case op == 50 && rnd.IntN(50) == 0: // empties it
			for f.len() > 0 {
				f.pop()
			}
			*w = nil
		case op == 51 && f.len() > 0:
			at := rnd.IntN(f.len())
			require.Equal(t, (*w)[at], f.remove(at).seq)
			*w = slices.Delete(*w, at, at+1)
		case op == 52 && rnd.IntN(1000) == 0:
			f.clear()
			*w = nil
		case op > 52 && f.len() > 0:
			require.Equal(t, (*w)[0], f.pop().seq)
			*w = (*w)[1:]
		}
		if f.slab != nil {
			lent++
		}
		require.Equal(t, len(*w), f.len())
		if seq%64 == 0 {
			for k, e := range f.entries() {
				require.Equal(t, (*w)[k], e.seq)
			}
		}
	}
	require.Positive(t, lent, "no fifo was ever long")
}

// TestLongFifoGivesItsMemoryBack holds that a session that had much to wait
// for keeps little of it, and that none of it points to a message.
func TestLongFifoGivesItsMemoryBack(t *testing.T) {
	var f fifo
	for range 3 {
		for range 5000 {
			f.push(entry{msg: &Message{}})
		}
		held := f.slab.buf[:cap(f.slab.buf)]
		for f.len() > 0 {
			require.NotNil(t, f.pop().msg)
		}
		require.Nil(t, f.slab)
		require.LessOrEqual(t, cap(f.buf), fifoKeep)
		for _, part := range [][]entry{held, f.buf[:cap(f.buf)]} {
			require.False(t, slices.ContainsFunc(part, func(e entry) bool { return e.msg != nil }), "a message is kept alive")
		}
	}
}
