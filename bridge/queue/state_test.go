package queue_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"gantry/bridge/queue"
	"gantry/persist/seglog/faultfs"
)

// worst loses as much as the random source lets a power cut lose.
func worst() *rand.Rand { return rand.New(rand.NewPCG(3, 3)) }

// model is what the queue should be: the numbers in it, in order.
type model struct {
	t      *rapid.T
	disk   *faultfs.Disk
	cfg    queue.Config
	q      *queue.Queue
	r      *queue.Reader
	next   uint64          // number of the next record to append
	order  []uint64        // numbers acknowledged, in order
	sent   []sentRecord    // handed out by the current Reader and not confirmed
	lost   uint64          // dropped, in sessions before this one
	taken  map[uint64]bool // numbers confirmed
	powers int
}

type sentRecord struct{ seq, number uint64 }

func (m *model) open() {
	q, err := queue.Open(m.cfg, nil)
	require.NoError(m.t, err)
	m.q = q
	m.rewind()
}

func (m *model) rewind() {
	m.r = m.q.Reader(m.q.Frontier())
	m.sent = nil
}

func (m *model) append(t *rapid.T) {
	n := rapid.IntRange(1, 60).Draw(t, "n")
	size := rapid.IntRange(8, 3000).Draw(t, "size")
	for range n {
		i := m.next
		err := put(m.q, record(i, size))
		if errors.Is(err, queue.ErrFull) {
			require.True(t, m.cfg.WhenFull == queue.Refuse || len(m.sent) > 0, "drop_oldest refuses only for records in flight")
			continue
		}
		require.NoError(t, err)
		m.order = append(m.order, i)
		m.next++
	}
}

func (m *model) read(t *rapid.T) {
	for range rapid.IntRange(1, 100).Draw(t, "n") {
		seq, rec, err := m.r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(t, err)
		i := binary.LittleEndian.Uint64(rec)
		require.Equal(t, record(i, len(rec)), rec)
		if n := len(m.sent); n > 0 {
			require.Greater(t, seq, m.sent[n-1].seq)
			require.Greater(t, i, m.sent[n-1].number, "order")
		}
		m.sent = append(m.sent, sentRecord{seq, i})
	}
}

func (m *model) confirm(t *rapid.T) {
	if len(m.sent) == 0 {
		return
	}
	n := rapid.IntRange(1, len(m.sent)).Draw(t, "n")
	m.q.Confirm(m.sent[n-1].seq + 1)
	for _, s := range m.sent[:n] {
		m.taken[s.number] = true
	}
	m.sent = m.sent[n:]
}

func (m *model) reopen(t *rapid.T) {
	m.end()
	m.open()
}

// cut is a power cut: the frontier may fall back, nothing acknowledged may be missing.
func (m *model) cut(t *rapid.T) {
	m.lost += dropped(m.q.Stats())
	seed := rapid.Uint64().Draw(t, "seed")
	disk := m.disk.PowerCut(rand.New(rand.NewPCG(seed, 5)))
	_ = m.q.Close()
	m.disk, m.cfg.FS = disk, disk
	m.powers++
	m.open()
}

func (m *model) end() {
	m.lost += dropped(m.q.Stats())
	require.NoError(m.t, m.q.Close())
}

// check compares after every step.
func (m *model) check(t *rapid.T) {
	s := m.q.Stats()
	require.LessOrEqual(t, m.disk.Used(), m.cfg.MaxBytes, "cap")
	require.LessOrEqual(t, m.disk.Peak(), m.cfg.MaxBytes, "cap at any moment")
	lost := m.lost + dropped(s)
	if m.powers == 0 {
		require.Equal(t, uint64(len(m.order)), s.Records+uint64(len(m.taken))+lost, "every record is there, confirmed or counted as lost")
	}
	if m.cfg.WhenFull == queue.Refuse {
		require.Zero(t, lost)
	}
}

// finish drains the queue: what was acknowledged is there, was confirmed, or is counted.
func (m *model) finish() {
	m.rewind()
	missing := uint64(0)
	seen := map[uint64]bool{}
	for {
		seq, rec, err := m.r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(m.t, err)
		i := binary.LittleEndian.Uint64(rec)
		require.False(m.t, seen[i], "twice")
		seen[i] = true
		m.q.Confirm(seq + 1)
	}
	for _, i := range m.order {
		if !seen[i] && !m.taken[i] {
			missing++
		}
	}
	lost := m.lost + dropped(m.q.Stats())
	if m.powers == 0 {
		require.Equal(m.t, lost, missing, "counted losses are the missing records")
	} else {
		require.LessOrEqual(m.t, missing, lost)
	}
	require.Zero(m.t, m.q.Stats().Records)
	require.NoError(m.t, m.q.Close())
}

func TestStateMachine(t *testing.T) {
	for _, policy := range []queue.Policy{queue.Refuse, queue.DropOldest} {
		t.Run(string(policy), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				disk := faultfs.New()
				m := &model{
					t: t, disk: disk, taken: map[uint64]bool{},
					cfg: queue.Config{Dir: "/queue", Name: "model", FS: disk, MaxBytes: 256 << 10, WhenFull: policy},
				}
				m.open()
				t.Repeat(map[string]func(*rapid.T){
					"append":  m.append,
					"read":    m.read,
					"confirm": m.confirm,
					"rewind":  func(*rapid.T) { m.rewind() },
					"reopen":  m.reopen,
					"cut":     m.cut,
					"":        m.check,
				})
				m.finish()
			})
		})
	}
}

// TestConcurrent has many appenders, a receiver that reads, confirms and starts over, and somebody who looks at the figures. Under Block
// and Refuse every acknowledged record arrives; under DropOldest what does not arrive is counted.
func TestConcurrent(t *testing.T) {
	for _, policy := range []queue.Policy{queue.Refuse, queue.DropOldest, queue.Block} {
		t.Run(string(policy), func(t *testing.T) {
			d := faultfs.New()
			q := open(t, queue.Config{FS: d, MaxBytes: 256 << 10, WhenFull: policy, MaxWaitBytes: 20 << 10})
			const writers, each = 6, 1500
			var acked, outcomes, tries atomic.Uint64
			var wg, watch sync.WaitGroup
			for w := range uint64(writers) {
				wg.Go(func() {
					for i := range uint64(each) {
						tries.Add(1)
						err := q.Append(context.Background(), record(w<<32|i, 100+int(i)%400), func(err error) {
							outcomes.Add(1)
							if err == nil {
								acked.Add(1)
							} else {
								t.Error(err)
							}
						})
						if err != nil {
							outcomes.Add(1)
							if policy == queue.Block || !errors.Is(err, queue.ErrFull) {
								t.Error(err)
							}
						}
					}
				})
			}
			stop := make(chan struct{})
			watch.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						s := q.Stats()
						if s.DiskBytes > s.MaxBytes {
							t.Errorf("%d bytes on disk", s.DiskBytes)
						}
					}
				}
			})
			delivered := map[uint64]bool{}
			received := make(chan struct{})
			finish := make(chan struct{})
			go func() {
				defer close(received)
				receive(t, q, delivered, finish)
			}()
			wg.Wait()
			eventually(t, func() bool { return outcomes.Load() == tries.Load() }, "each done is called")
			close(finish)
			<-received
			close(stop)
			watch.Wait()
			s := q.Stats()
			require.Equal(t, acked.Load(), uint64(len(delivered))+dropped(s))
			require.Equal(t, s.Confirmed, uint64(len(delivered)))
			require.Zero(t, s.Records)
			require.LessOrEqual(t, d.Peak(), int64(256<<10))
			if policy != queue.DropOldest {
				require.Zero(t, dropped(s))
			}
		})
	}
}

// receive reads windows of 50 records, confirms most of each, and starts over now and then. It ends when finish is closed and nothing is
// left.
func receive(t *testing.T, q *queue.Queue, delivered map[uint64]bool, finish <-chan struct{}) {
	last := map[uint64]uint64{} // writer → newest number
	rnd := rand.New(rand.NewPCG(1, 9))
	for {
		r := q.Reader(q.Frontier())
		for range 1 + rnd.IntN(5) {
			var window []sentRecord
			for len(window) < 50 {
				ready := q.Ready()
				seq, rec, err := r.Next()
				if errors.Is(err, io.EOF) {
					select {
					case <-ready:
						continue
					case <-finish:
					}
					break
				}
				if err != nil {
					t.Error(err)
					return
				}
				window = append(window, sentRecord{seq, binary.LittleEndian.Uint64(rec)})
			}
			if len(window) == 0 {
				if q.Stats().Records == 0 {
					return
				}
				break
			}
			keep := window
			if len(window) > 1 {
				keep = window[:1+rnd.IntN(len(window)-1)]
			}
			for _, s := range keep {
				w := s.number >> 32
				if n, ok := last[w]; ok && s.number <= n {
					t.Errorf("writer %d: %d after %d", w, s.number, n)
				}
				last[w] = s.number
				delivered[s.number] = true
			}
			q.Confirm(keep[len(keep)-1].seq + 1)
			if len(keep) < len(window) {
				break // the rest has to be read again
			}
		}
	}
}

// TestReopenAfterCopy reopens a copy of the folder of a queue in use, as after kill -9: nothing that was acknowledged and not confirmed
// is missing.
func TestReopenAfterCopy(t *testing.T) {
	dir := t.TempDir()
	q := open(t, queue.Config{Dir: dir, MaxBytes: 1 << 20})
	for i := range uint64(2000) {
		require.NoError(t, put(q, record(i, 100)))
		if i%10 == 0 {
			q.Confirm(i / 2)
		}
	}
	frontier := q.Frontier()
	copied := t.TempDir()
	ents, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range ents {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(copied, e.Name()), b, 0o600))
	}
	again := open(t, queue.Config{Dir: copied, MaxBytes: 1 << 20})
	require.LessOrEqual(t, again.Frontier(), frontier, "confirming is never ahead of what was confirmed")
	got := drain(t, again)
	require.Equal(t, uint64(1999), got[len(got)-1])
	require.LessOrEqual(t, got[0], frontier-1)
	for i := 1; i < len(got); i++ {
		require.Equal(t, got[i-1]+1, got[i])
	}
}
