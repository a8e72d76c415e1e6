package main

import "sync"

// window counts the publishes that wait for their acknowledgement.
type window struct {
	mu    sync.Mutex // covers the rest
	cond  sync.Cond
	free  int
	ended bool
}

func newWindow(n int) *window {
	w := &window{free: n}
	w.cond.L = &w.mu
	return w
}

// take waits until n places are free; false means that the load has ended.
func (w *window) take(n int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.free < n && !w.ended {
		w.cond.Wait()
	}
	w.free -= n
	return !w.ended
}

func (w *window) give(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.free += n
	w.cond.Signal()
}

func (w *window) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	w.cond.Signal()
}
