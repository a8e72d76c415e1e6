package queue_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"gantry/bridge/queue"
)

// BenchmarkAppend has publishers with a window of 200 records each that wait for the fsync: acknowledgements per second of one queue.
func BenchmarkAppend(b *testing.B) {
	for _, publishers := range []int{1, 50} {
		b.Run(fmt.Sprintf("publishers=%d", publishers), func(b *testing.B) {
			q, err := queue.Open(queue.Config{Dir: b.TempDir(), Name: "bench", MaxBytes: 1 << 30, WhenFull: queue.DropOldest}, nil)
			if err != nil {
				b.Fatal(err)
			}
			defer q.Close()
			work := make(chan int, publishers)
			var wg sync.WaitGroup
			for range publishers {
				wg.Go(func() {
					rec := record(1, 200)
					window := make(chan struct{}, 200)
					done := func(err error) {
						if err != nil {
							b.Error(err)
						}
						<-window
					}
					for n := range work {
						for range n {
							window <- struct{}{}
							if err := q.Append(context.Background(), rec, done); err != nil {
								b.Error(err)
								return
							}
						}
					}
					for range cap(window) {
						window <- struct{}{}
					}
				})
			}
			b.ReportAllocs()
			const batch = 100
			for b.Loop() {
				work <- batch
			}
			close(work)
			wg.Wait()
			b.ReportMetric(float64(b.N)*batch/b.Elapsed().Seconds(), "rec/s")
		})
	}
}
