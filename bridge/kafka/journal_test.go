package kafka

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func planAt(lo uint64) plan {
	return plan{
		producer: 77, epoch: 3, frontier: lo, top: lo, lo: lo, hi: lo + 10,
		batches: []batchPlan{
			{place: place{topic: "t", partitions: 4, partition: 1}, first: 1 << 30, count: 6},
			{place: place{topic: "u", partitions: 1, partition: 0}, first: 0, count: 4},
		},
	}
}

func TestJournalSurvives(t *testing.T) {
	dir := t.TempDir()
	j, err := openJournal(dir)
	require.NoError(t, err)
	require.Empty(t, j.live)
	id := j.id
	var under []plan
	for i := range uint64(20) { // goes around the slots twice
		p := planAt(10 * i)
		oldest := uint64(0)
		if len(under) == maxRounds {
			under = under[1:]
		}
		if len(under) > 0 {
			oldest = under[0].gen
		}
		require.NoError(t, j.write(&p, oldest))
		require.InDelta(t, time.Now().Unix(), p.at, 10)
		under = append(under, p)
		require.NoError(t, j.close())
		j, err = openJournal(dir)
		require.NoError(t, err)
		require.Equal(t, under, j.live)
		require.Equal(t, id, j.id)
		require.False(t, j.gap)
	}
	require.NoError(t, j.close())
	info, err := os.Stat(filepath.Join(dir, journalName))
	require.NoError(t, err)
	require.EqualValues(t, journalBytes, info.Size())
}

// damage rewrites the file of a journal with two rounds under way.
func damage(t *testing.T, change func(b []byte) []byte) (j *journal, dir string) {
	t.Helper()
	dir = t.TempDir()
	j, err := openJournal(dir)
	require.NoError(t, err)
	first, second := planAt(10), planAt(20)
	require.NoError(t, j.write(&first, 0))
	require.NoError(t, j.write(&second, first.gen))
	require.NoError(t, j.close())
	path := filepath.Join(dir, journalName)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, change(b), 0o600))
	j, err = openJournal(dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, j.close()) })
	return j, dir
}

func TestJournalDamage(t *testing.T) {
	flip := func(at int) func([]byte) []byte {
		return func(b []byte) []byte { b[at] ^= 1; return b }
	}
	slot := func(gen int) int { return headerBytes + gen*slotBytes }

	j, _ := damage(t, flip(slot(2)+20)) // the newest is torn: it was never sent
	require.Len(t, j.live, 1)
	require.EqualValues(t, 10, j.live[0].lo)
	require.False(t, j.gap)

	j, _ = damage(t, flip(slot(1)+20)) // a round before it is gone: it may have been sent
	require.Empty(t, j.live)
	require.True(t, j.gap)

	for name, change := range map[string]func([]byte) []byte{
		"magic": flip(0), "id": flip(10), "empty": func([]byte) []byte { return nil }, "cut": func(b []byte) []byte { return b[:100] },
	} {
		j, dir := damage(t, change)
		require.True(t, j.gap, name)
		aside, err := filepath.Glob(filepath.Join(dir, journalName+".bad-*"))
		require.NoError(t, err)
		require.Len(t, aside, 1, "%s: set aside, not deleted", name)
	}

	j, _ = damage(t, func(b []byte) []byte { return b[:slot(2)] }) // cut behind the first round
	require.Len(t, j.live, 1)
}

func TestJournalOfANewerVersion(t *testing.T) {
	dir := t.TempDir()
	j, err := openJournal(dir)
	require.NoError(t, err)
	require.NoError(t, j.close())
	path := filepath.Join(dir, journalName)
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	b[4] = journalVersion + 1
	sealHeader(b)
	require.NoError(t, os.WriteFile(path, b, 0o600))
	_, err = openJournal(dir)
	require.ErrorContains(t, err, "newer")
}

func TestPlanTruncated(t *testing.T) {
	p := planAt(5)
	p.gen, p.oldest, p.at = 9, 7, 1_700_000_000
	p.top = 50
	p.open = []openPartition{{place: place{topic: "v", partitions: 3, partition: 2}, from: 11}}
	b := p.append(nil)
	var got plan
	require.NoError(t, got.decode(b))
	require.Equal(t, p, got)
	for n := range b {
		require.Error(t, got.decode(b[:n]), "prefix of %d bytes", n)
	}
	require.Error(t, got.decode(append(b, 0)))
}

// TestLargestPlanFits builds what planBudget allows at most.
func TestLargestPlanFits(t *testing.T) {
	const huge = 1<<31 - 1
	var p plan
	fill := func(round int, put func(place)) {
		for names := 0; ; {
			name := strings.Repeat("n", maxTopicName-8) + string(rune('a'+round)) + strings.Repeat("x", names%7)
			if names += len(name) + planCost; names > planBudget {
				return
			}
			put(place{topic: name, partitions: huge, partition: huge - 1})
		}
	}
	for round := range maxRounds {
		fill(round, func(at place) { p.open = append(p.open, openPartition{place: at, from: 1 << 63}) })
	}
	fill(maxRounds, func(at place) { p.batches = append(p.batches, batchPlan{place: at, first: huge, count: huge}) })
	p.frontier, p.top, p.lo, p.hi, p.gen, p.oldest = 1<<62, 1<<63, 1<<62, 1<<63, 1<<63, 1<<63
	require.Less(t, len(p.append(nil)), slotBytes-8)
}

func FuzzPlan(f *testing.F) {
	p := planAt(5)
	p.gen, p.oldest = 9, 7
	f.Add(p.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p, again plan
		if p.decode(b) == nil {
			require.NoError(t, again.decode(p.append(nil)))
			require.Equal(t, p, again)
		}
	})
}
