package seglog_test

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"gantry/persist/seglog"
)

// BenchmarkBareFile writes and fdatasyncs the same bytes to a plain file: what the disk can do.
func BenchmarkBareFile(b *testing.B) {
	for _, group := range groups {
		b.Run(fmt.Sprintf("group=%d", group), func(b *testing.B) {
			f, err := os.Create(filepath.Join(b.TempDir(), "bare"))
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			buf := make([]byte, int(seglog.FrameSize(200))*group)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f.Write(buf); err != nil {
					b.Fatal(err)
				}
				if err := syscall.Fdatasync(int(f.Fd())); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*group)/b.Elapsed().Seconds(), "rec/s")
		})
	}
}
