package seglog_test

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"gantry/persist/seglog"
	"gantry/persist/seglog/faultfs"
)

// logImage is the folder of a log whose process was killed: 20 000 acknowledged records of 200 bytes, no Close.
func logImage(t *testing.T, segmentBytes int64, records int) *faultfs.Disk {
	t.Helper()
	disk := faultfs.New()
	l, err := seglog.Open("/log", seglog.Options{FS: disk, SegmentBytes: segmentBytes})
	require.NoError(t, err)
	for i := 0; i < records; i += 100 {
		recs := make([][]byte, 100)
		for j := range recs {
			recs[j] = body(uint64(i+j), 200)
		}
		appendWait(t, l, recs...)
	}
	image := disk.PowerCut(rand.New(rand.NewPCG(1, 1))) // everything was fsynced: the image is complete
	disk.Hook(nil)
	_ = l.Close()
	return image
}

func segmentFiles(t *testing.T, d *faultfs.Disk) (paths []string) {
	t.Helper()
	infos, err := d.List("/log")
	require.NoError(t, err)
	for _, info := range infos {
		if strings.HasSuffix(info.Name, ".seg") {
			paths = append(paths, filepath.Join("/log", info.Name))
		}
	}
	return paths
}

func damage(t *testing.T, d *faultfs.Disk, path string, f func([]byte) []byte) {
	t.Helper()
	b, err := d.ReadFile(path)
	require.NoError(t, err)
	d.WriteFile(path, f(b))
}

func garbage(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{7})
	_, _ = r.Read(b)
	return b
}

// TestDamage is the release gate: each of these made other logs refuse to start, return records that never were, or lose what
// lay behind the damage.
func TestDamage(t *testing.T) {
	const records = 20_000
	for _, tc := range []struct {
		name   string
		damage func(b []byte) []byte
		lost   int // at most
		bad    bool
	}{
		{"nothing but the kill", func(b []byte) []byte { return b }, 0, false},
		{"tail cut by 37 bytes", func(b []byte) []byte { return b[:len(b)-37] }, 1, false},
		{"last 3000 bytes zero", func(b []byte) []byte { clear(b[len(b)-3000:]); return b }, 14, false},
		{"5000 bytes of garbage behind", func(b []byte) []byte { return append(b, garbage(5000)...) }, 0, false},
		{"5001 bytes of zeros behind", func(b []byte) []byte { return append(b, make([]byte, 5001)...) }, 0, false},
		{"one bit in the middle", func(b []byte) []byte { b[len(b)/2] ^= 4; return b }, 1, true},
		{"512 bytes zero in the middle", func(b []byte) []byte { clear(b[len(b)/2 : len(b)/2+512]); return b }, 4, true},
		{"300 KB of garbage in the middle", func(b []byte) []byte { copy(b[len(b)/2:], garbage(300<<10)); return b }, 1424, true},
		{"file header zero", func(b []byte) []byte { clear(b[:512]); return b }, 3, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := logImage(t, 16<<20, records)
			damage(t, d, segmentFiles(t, d)[0], tc.damage)
			l := open(t, "/log", seglog.Options{FS: d})
			recs := readAll(t, l, 0)
			require.GreaterOrEqual(t, len(recs), records-tc.lost)
			require.LessOrEqual(t, len(recs), records)
			for _, r := range recs {
				require.Equal(t, r.seq-1, checkBody(t, r.payload))
			}
			require.GreaterOrEqual(t, l.Next(), uint64(records+1), "numbers of damaged records do not come again")
			require.Equal(t, tc.bad, l.Stats().CorruptBytes > 0)

			for i := range 1000 {
				_, err := l.Append(t.Context(), nil, body(uint64(records+i), 200))
				require.NoError(t, err)
			}
			require.NoError(t, l.Close())
			l = open(t, "/log", seglog.Options{FS: d})
			require.Len(t, readAll(t, l, 0), len(recs)+1000)
			require.Equal(t, tc.bad, l.Stats().CorruptBytes > 0)
		})
	}
}

// TestDiskFull fills the disk, frees it, goes on without reopening and reopens: nothing acknowledged is missing.
func TestDiskFull(t *testing.T) {
	d := faultfs.New()
	d.SetCapacity(24 << 20)
	l := open(t, "/log", seglog.Options{FS: d, SegmentBytes: 4 << 20})
	acked := map[uint64]uint64{}
	var n uint64
	add := func(batch int) error {
		recs := make([][]byte, batch)
		for j := range recs {
			recs[j] = body(n+uint64(j), 200)
		}
		c, err := tryAppend(l, recs...)
		if err == nil {
			for j := range uint64(batch) {
				acked[c.First+j] = n + j
			}
		}
		n += uint64(batch)
		return err
	}
	failed := 0
	for failed < 20 {
		if err := add(100); err != nil {
			require.ErrorContains(t, err, "no space left")
			failed++
		}
	}
	require.Greater(t, len(acked), 80_000)
	require.LessOrEqual(t, d.Used(), int64(24<<20))
	l.SetCursor(10) // the cursor moves on a full disk
	require.NoError(t, l.SaveCursor())
	d.SetCapacity(0)
	for range 100 {
		require.NoError(t, add(100), "goes on without reopening")
	}
	verify := func(l *seglog.Log) {
		recs := readAll(t, l, 0)
		require.Len(t, recs, len(acked), "exactly what was acknowledged")
		for _, r := range recs {
			i, ok := acked[r.seq]
			require.True(t, ok)
			require.Equal(t, body(i, 200), r.payload)
		}
	}
	verify(l)
	require.NoError(t, l.Close())
	l = open(t, "/log", seglog.Options{FS: d, SegmentBytes: 4 << 20})
	require.Equal(t, uint64(10), l.Cursor())
	verify(l)
}

func TestOpensOnFullDisk(t *testing.T) {
	d := faultfs.New()
	l := open(t, "/log", seglog.Options{FS: d, SegmentBytes: 16 << 10})
	for i := range uint64(300) {
		appendWait(t, l, body(i, 200))
	}
	require.NoError(t, l.Close())
	d.SetCapacity(1)
	l = open(t, "/log", seglog.Options{FS: d, SegmentBytes: 16 << 10})
	require.Len(t, readAll(t, l, 0), 300)
	_, err := tryAppend(l, body(300, 200))
	require.Error(t, err)
	l.SetCursor(200)
	require.NoError(t, l.SaveCursor(), "draining frees a full disk")
	require.Greater(t, l.First(), uint64(100))
	d.SetCapacity(1 << 20)
	appendWait(t, l, body(301, 200))
	require.Len(t, readAll(t, l, 200), 102)
}

func TestEmptyFolderOnFullDisk(t *testing.T) {
	d := faultfs.New()
	d.SetCapacity(1)
	d.WriteFile("/other", make([]byte, 100))
	l := open(t, "/log", seglog.Options{FS: d})
	_, err := tryAppend(l, body(1, 10))
	require.Error(t, err)
	d.SetCapacity(0)
	appendWait(t, l, body(2, 10))
	require.NoError(t, l.SaveCursor())
}

// TestTruncatedPrefix opens every prefix of a segment.
func TestTruncatedPrefix(t *testing.T) {
	d := faultfs.New()
	l := open(t, "/log", seglog.Options{FS: d})
	for i := range uint64(5) {
		appendWait(t, l, body(i, 10+int(i)*20))
	}
	require.NoError(t, l.Close())
	path := segmentFiles(t, d)[0]
	whole, err := d.ReadFile(path)
	require.NoError(t, err)
	for n := range len(whole) + 1 {
		d := faultfs.New()
		d.WriteFile(path, whole[:n])
		l := open(t, "/log", seglog.Options{FS: d})
		recs := readAll(t, l, 0)
		if n == len(whole) {
			require.Len(t, recs, 5)
		}
		for i, r := range recs {
			require.Equal(t, body(uint64(i), 10+i*20), r.payload)
		}
		c := appendWait(t, l, body(99, 10))
		require.Greater(t, c.First, uint64(len(recs)))
		require.Len(t, readAll(t, l, 0), len(recs)+1)
		require.NoError(t, l.Close())
	}
}

func TestTinyFileIsSetAside(t *testing.T) {
	d := logImage(t, 256<<10, 2000)
	tiny := "/log/00000000000007d1-0000abcd.seg"
	d.WriteFile(tiny, []byte("GSLG"))
	l := open(t, "/log", seglog.Options{FS: d})
	require.Len(t, readAll(t, l, 0), 2000)
	require.Equal(t, uint64(1), l.Stats().Quarantined)
	_, err := d.ReadFile(tiny)
	require.Error(t, err)
	b, err := d.ReadFile("/log/quarantine/00000000000007d1-0000abcd.seg")
	require.NoError(t, err)
	require.Equal(t, []byte("GSLG"), b)
}

// TestUnfinishedSegment: a kill while a segment is made leaves nothing to worry about.
func TestUnfinishedSegment(t *testing.T) {
	d := logImage(t, 256<<10, 2000)
	d.WriteFile("/log/00000000000007d1-0000abcd.seg.tmp", []byte("GSLG"))
	l := open(t, "/log", seglog.Options{FS: d})
	require.Len(t, readAll(t, l, 0), 2000)
	require.Zero(t, l.Stats().Quarantined)
	require.Equal(t, d.UsedIn("/log"), l.DiskBytes())
}

// TestHopelessSegmentIsSetAside replaces whole segments by garbage: the oldest, one in the middle and the newest.
func TestHopelessSegmentIsSetAside(t *testing.T) {
	for _, which := range []string{"oldest", "middle", "newest"} {
		t.Run(which, func(t *testing.T) {
			d := logImage(t, 64<<10, 2000)
			snap, err := seglog.InspectFS(d, "/log")
			require.NoError(t, err)
			i := map[string]int{"oldest": 0, "middle": 3, "newest": len(snap.Segments) - 1}[which]
			victim := snap.Segments[i]
			damage(t, d, victim.Path, func(b []byte) []byte { return garbage(len(b)) })
			l := open(t, "/log", seglog.Options{FS: d, SegmentBytes: 64 << 10})
			left := 2000 - int(victim.End-victim.Base)
			require.Len(t, readAll(t, l, 0), left)
			require.GreaterOrEqual(t, l.Next(), uint64(2001))
			require.Equal(t, uint64(1), l.Stats().Quarantined)
			require.Equal(t, uint64(left), l.Records(0, 1<<62))
			b, err := d.ReadFile("/log/quarantine/" + filepath.Base(victim.Path))
			require.NoError(t, err)
			require.Len(t, b, int(victim.Bytes))
			appendWait(t, l, body(1, 200))
			require.NoError(t, l.Close())
			l = open(t, "/log", seglog.Options{FS: d})
			require.Len(t, readAll(t, l, 0), left+1)
			require.Equal(t, uint64(left+1), l.Records(0, 1<<62))
		})
	}
}

// TestDamagedSegmentIsKept: what could not be read goes to quarantine when its turn to be deleted comes, within the quarantine's cap.
func TestDamagedSegmentIsKept(t *testing.T) {
	d := logImage(t, 64<<10, 2000)
	snap, err := seglog.InspectFS(d, "/log")
	require.NoError(t, err)
	for _, s := range snap.Segments {
		damage(t, d, s.Path, func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
	}
	l := open(t, "/log", seglog.Options{FS: d, SegmentBytes: 64 << 10, QuarantineBytes: 200 << 10})
	require.Len(t, readAll(t, l, 0), 2000-len(snap.Segments))
	l.SetCursor(2001)
	require.NoError(t, l.SaveCursor())
	require.Equal(t, uint64(len(snap.Segments)-1), l.Stats().Quarantined)
	infos, err := d.List("/log/quarantine")
	require.NoError(t, err)
	require.Len(t, infos, 3, "as many as the cap allows")
	require.Equal(t, d.UsedIn("/log/quarantine"), l.Stats().QuarantineBytes)
	require.Equal(t, d.UsedIn("/log"), l.Bytes()+seglog.CursorBytes+l.Stats().QuarantineBytes)
	_, err = d.ReadFile("/log/quarantine/" + filepath.Base(snap.Segments[len(snap.Segments)-2].Path))
	require.NoError(t, err, "the newest are kept")
}

func TestBadCursorStartsAtTheOldest(t *testing.T) {
	for name, f := range map[string]func([]byte) []byte{
		"garbage": func(b []byte) []byte { return garbage(len(b)) },
		"short":   func([]byte) []byte { return []byte{1, 2, 3} },
		"gone":    func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			d := faultfs.New()
			l := open(t, "/log", seglog.Options{FS: d, SegmentBytes: 16 << 10})
			for i := range uint64(300) {
				appendWait(t, l, body(i, 200))
			}
			l.SetCursor(200)
			require.NoError(t, l.SaveCursor())
			first := l.First()
			require.Greater(t, first, uint64(1))
			require.NoError(t, l.Close())
			damage(t, d, "/log/cursor", f)
			l = open(t, "/log", seglog.Options{FS: d, SegmentBytes: 16 << 10})
			require.Equal(t, first, l.Cursor())
			require.Equal(t, first, l.First())
			require.Equal(t, name != "gone", l.Stats().CursorResets == 1)
			require.Equal(t, uint64(301), appendWait(t, l, body(1, 1)).First)
		})
	}
}

func TestOneCursorSlotIsEnough(t *testing.T) {
	for _, off := range []int{0, 4096} {
		d := faultfs.New()
		l := open(t, "/log", seglog.Options{FS: d})
		appendWait(t, l, body(0, 10), body(1, 10), body(2, 10))
		l.SetCursor(2)
		require.NoError(t, l.SaveCursor())
		require.NoError(t, l.Close())
		damage(t, d, "/log/cursor", func(b []byte) []byte { clear(b[off : off+512]); return b })
		l = open(t, "/log", seglog.Options{FS: d})
		require.Equal(t, uint64(2), l.Cursor())
		require.Zero(t, l.Stats().CursorResets)
	}
}

func TestDrainedLogKeepsItsNumbersWithoutCursor(t *testing.T) {
	d := faultfs.New()
	l := open(t, "/log", seglog.Options{FS: d, SegmentBytes: 4 << 10})
	for i := range uint64(100) {
		appendWait(t, l, body(i, 200))
	}
	l.SetCursor(101)
	require.NoError(t, l.Close())
	damage(t, d, "/log/cursor", func(b []byte) []byte { return garbage(len(b)) })
	l = open(t, "/log", seglog.Options{FS: d, SegmentBytes: 4 << 10})
	require.Equal(t, uint64(101), l.Next())
}

func TestNewerFormatIsRefused(t *testing.T) {
	d := logImage(t, 1<<20, 100)
	path := segmentFiles(t, d)[0]
	damage(t, d, path, func(b []byte) []byte {
		binary.LittleEndian.PutUint16(b[4:], 2)
		binary.LittleEndian.PutUint32(b[28:], crc32.Checksum(b[:28], crc32.MakeTable(crc32.Castagnoli)))
		return b
	})
	_, err := seglog.Open("/log", seglog.Options{FS: d})
	require.ErrorIs(t, err, seglog.ErrVersion)
	require.ErrorContains(t, err, "has format 2, this program reads up to 1")
	_, err = seglog.InspectFS(d, "/log")
	require.ErrorIs(t, err, seglog.ErrVersion)
	_, err = seglog.Open("/log", seglog.Options{FS: d})
	require.NotErrorIs(t, err, seglog.ErrLocked, "a refused open gives the folder up")
}

func TestReadAtFindsDamage(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, seglog.Options{})
	c := appendWait(t, l, body(0, 100), body(1, 100))
	f, err := os.OpenFile(l.Segments()[0].Path, os.O_RDWR, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte{1, 2, 3}, c.Pos.Offset+50)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	_, _, err = l.ReadAt(c.Pos, nil)
	require.ErrorIs(t, err, seglog.ErrCorrupt)
	_, p, err := l.ReadAt(c.Pos.Add(100), nil)
	require.NoError(t, err)
	require.Equal(t, body(1, 100), p)
	for _, off := range []int64{-8, 0, 8, 33, c.Pos.Offset + 8, c.Pos.Add(100).Add(100).Offset, 1 << 40} {
		_, _, err = l.ReadAt(seglog.Pos{Segment: c.Pos.Segment, Offset: off}, nil)
		require.ErrorIs(t, err, seglog.ErrCorrupt, "offset %d", off)
	}
	_, _, err = l.ReadAt(seglog.Pos{Segment: 77, Offset: 32}, nil)
	require.ErrorIs(t, err, seglog.ErrGone)
}

// TestBadSector: a block that the disk cannot read costs the records in it, after the reader was told three times.
func TestBadSector(t *testing.T) {
	d := logImage(t, 1<<20, 2000)
	l := open(t, "/log", seglog.Options{FS: d, SegmentBytes: 1 << 20})
	disk := badSector{FS: d, from: 100_000, to: 100_512}
	require.NoError(t, l.Close())
	l = open(t, "/log", seglog.Options{FS: disk})
	r := l.NewReader(0)
	defer r.Close()
	n, errs := 0, 0
	for {
		_, _, p, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			require.ErrorIs(t, err, faultfs.ErrInjected)
			errs++
			continue
		}
		checkBody(t, p)
		n++
	}
	require.InDelta(t, 2000, n, 40)
	require.Less(t, n, 2000)
	require.Positive(t, l.Stats().CorruptBytes)
}

// badSector makes reads of a byte range fail in every file.
type badSector struct {
	seglog.FS
	from, to int64
}

func (b badSector) Open(path string, flag int) (seglog.File, error) {
	f, err := b.FS.Open(path, flag)
	if err != nil || !strings.HasSuffix(path, ".seg") {
		return f, err
	}
	return badFile{f, b}, nil
}

type badFile struct {
	seglog.File
	b badSector
}

func (f badFile) ReadAt(p []byte, off int64) (int, error) {
	if off < f.b.to && off+int64(len(p)) > f.b.from {
		return 0, faultfs.ErrInjected
	}
	return f.File.ReadAt(p, off)
}

// TestLostTailOfClosedLog: a file that lost whole records looks sound; the cursor file remembers how far numbers went.
func TestLostTailOfClosedLog(t *testing.T) {
	d := faultfs.New()
	l := open(t, "/log", seglog.Options{FS: d})
	c := appendWait(t, l, body(0, 100), body(1, 100))
	require.NoError(t, l.Close())
	damage(t, d, segmentFiles(t, d)[0], func(b []byte) []byte { return b[:c.Pos.Add(100).Offset] })
	l = open(t, "/log", seglog.Options{FS: d})
	require.Len(t, readAll(t, l, 0), 1)
	require.Equal(t, uint64(3), l.Next())
}
