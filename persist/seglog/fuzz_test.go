package seglog_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"gantry/persist/seglog"
	"gantry/persist/seglog/faultfs"
)

// FuzzSegment puts any bytes into a segment file and a cursor: no panic, no endless loop, and no record other than those appended.
func FuzzSegment(f *testing.F) {
	d := faultfs.New()
	l, err := seglog.Open("/log", seglog.Options{FS: d})
	if err != nil {
		f.Fatal(err)
	}
	for i := range uint64(4) {
		appendWait(f, l, body(i, 20+int(i)*30))
	}
	l.SetCursor(2)
	if err := l.Close(); err != nil {
		f.Fatal(err)
	}
	snap, err := seglog.InspectFS(d, "/log")
	if err != nil {
		f.Fatal(err)
	}
	path := snap.Segments[0].Path
	whole, _ := d.ReadFile(path)
	cursor, _ := d.ReadFile("/log/cursor")
	f.Add(whole, cursor[:40])
	f.Add(whole[:len(whole)-5], []byte{})
	f.Add(append([]byte(nil), whole[64:]...), cursor[4096:4136])
	f.Add(make([]byte, 400), make([]byte, 100))
	f.Fuzz(func(t *testing.T, segment, cursor []byte) {
		d := faultfs.New()
		d.WriteFile(path, segment)
		d.WriteFile("/log/cursor", cursor)
		l, err := seglog.Open("/log", seglog.Options{FS: d})
		if err != nil {
			require.ErrorIs(t, err, seglog.ErrVersion)
			return
		}
		for _, r := range readAll(t, l, 0) {
			if len(r.payload) >= 8 && r.seq <= 4 {
				require.Equal(t, body(r.seq-1, len(r.payload)), r.payload)
			}
		}
		appendWait(t, l, []byte("more"))
		require.NoError(t, l.Close())
		snap, err := seglog.InspectFS(d, "/log")
		require.NoError(t, err)
		require.NotEmpty(t, snap.Segments)
	})
}
