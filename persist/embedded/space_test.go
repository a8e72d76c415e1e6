package embedded

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"gantry/persist/seglog"
	"gantry/persist/seglog/faultfs"
)

// sizedFS is a file system that tells its size.
type sizedFS struct {
	seglog.FS
	size, free int64
}

func (s *sizedFS) Space(string) (size, free int64, err error) { return s.size, s.free, nil }

func TestSegmentsFitASmallDisk(t *testing.T) {
	for _, tc := range []struct{ disk, segment, reserve int64 }{
		{1 << 40, 16 << 20, 32 << 20},
		{1 << 30, 16 << 20, 32 << 20},
		{512 << 20, 8 << 20, 16 << 20},
		{64 << 20, 1 << 20, 2 << 20},
		{12 << 20, 256 << 10, 512 << 10},
		{1 << 20, 256 << 10, 512 << 10},
	} {
		c := Config{Dir: "/store", SegmentBytes: 16 << 20, Reserve: 32 << 20, FS: &sizedFS{FS: faultfs.New(), size: tc.disk}}
		c.fitDisk()
		require.Equal(t, tc.segment, c.SegmentBytes, "disk of %d", tc.disk)
		require.Equal(t, tc.reserve, c.Reserve, "disk of %d", tc.disk)
	}
}

func TestReserveLeavesRoomForOthers(t *testing.T) {
	disk := faultfs.New()
	fs := &sizedFS{FS: disk, free: 1<<20 - 1}
	cfg := Config{Dir: "/", Reserve: 512 << 10, FS: fs}
	r := newReserve(&cfg)
	require.Error(t, r.take())
	require.False(t, r.held)
	require.Zero(t, disk.Used(), "nothing was written for it")
	fs.free++
	require.NoError(t, r.take())
	require.True(t, r.held)
	require.EqualValues(t, 512<<10, disk.Used())
	r.size = 256 << 10
	require.NoError(t, r.take(), "a smaller one is made of it")
	require.EqualValues(t, 256<<10, disk.Used())
}

// A file system that does not say what is free: what the reserve itself gave up is no room for it.
func TestReserveOnASilentDisk(t *testing.T) {
	const size = 512 << 10
	disk := faultfs.New()
	r := newReserve(&Config{Dir: "/", Reserve: size, FS: disk})
	disk.SetCapacity(2*size - 1)
	require.ErrorIs(t, r.take(), syscall.ENOSPC)
	require.False(t, r.held)
	require.Zero(t, disk.Used(), "what was written to find out is gone")
	disk.SetCapacity(2 * size)
	require.NoError(t, r.take())
	require.True(t, r.held)
	require.EqualValues(t, size, disk.Used(), "the other half is for others")
	require.NoError(t, r.take(), "there already")
	require.EqualValues(t, size, disk.Peak()-size)
}

func TestTheOperatingSystemTellsItsSpace(t *testing.T) {
	fs, ok := seglog.OS().(spacer)
	if !ok {
		t.Skip("not on this system")
	}
	size, free, err := fs.Space(t.TempDir())
	require.NoError(t, err)
	require.Positive(t, size)
	require.LessOrEqual(t, free, size)
}
