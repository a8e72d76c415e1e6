package seglog_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"gantry/persist/seglog"
)

var groups = []int{1, 16, 128, 1024}

// BenchmarkAppend appends 200-byte records with fsync, one group after the other: the throughput of a publisher that waits for each group.
func BenchmarkAppend(b *testing.B) {
	for _, group := range groups {
		b.Run(fmt.Sprintf("group=%d", group), func(b *testing.B) {
			l, err := seglog.Open(b.TempDir(), seglog.Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			rec := body(1, 200)
			var wg sync.WaitGroup
			var failed error
			done := func(c seglog.Committed) {
				if c.Err != nil {
					failed = c.Err
				}
				wg.Done()
			}
			b.ReportAllocs()
			for b.Loop() {
				wg.Add(group)
				for range group {
					if _, err := l.Append(context.Background(), done, rec); err != nil {
						b.Fatal(err)
					}
				}
				wg.Wait()
			}
			if failed != nil {
				b.Fatal(failed)
			}
			b.ReportMetric(float64(b.N*group)/b.Elapsed().Seconds(), "rec/s")
		})
	}
}

// BenchmarkClients has many publishers with one record outstanding each: acknowledgements per second of a group commit.
func BenchmarkClients(b *testing.B) {
	for _, clients := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			l, err := seglog.Open(b.TempDir(), seglog.Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			work := make(chan struct{})
			var wg sync.WaitGroup
			for range clients {
				wg.Go(func() {
					rec := body(1, 200)
					acked := make(chan error, 1)
					done := func(c seglog.Committed) { acked <- c.Err }
					for range work {
						if _, err := l.Append(context.Background(), done, rec); err != nil {
							b.Error(err)
							return
						}
						if err := <-acked; err != nil {
							b.Error(err)
						}
					}
				})
			}
			for b.Loop() {
				work <- struct{}{}
			}
			close(work)
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rec/s")
		})
	}
}

// BenchmarkRead reads a log of 200-byte records from the page cache.
func BenchmarkRead(b *testing.B) {
	l, err := seglog.Open(b.TempDir(), seglog.Options{Sync: seglog.SyncNever})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	const records = 100_000
	for range records {
		if _, err := l.Append(context.Background(), nil, body(1, 200)); err != nil {
			b.Fatal(err)
		}
	}
	for l.Durable() < l.Next() {
		<-l.Ready()
	}
	r := l.NewReader(0)
	defer func() { _ = r.Close() }()
	b.ReportAllocs()
	for b.Loop() {
		if _, _, _, err := r.Next(); err != nil {
			_ = r.Close()
			r = l.NewReader(0)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rec/s")
}
