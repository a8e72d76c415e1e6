package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// stage runs parts that are stopped together.
type stage struct {
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	failed chan<- error // capacity 1: the first failure ends the gateway
}

func newStage(failed chan<- error) *stage {
	s := &stage{failed: failed}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// run starts a part that blocks until its context ends.
func (s *stage) run(name string, part func(context.Context) error) {
	s.wg.Go(func() {
		err := part(s.ctx)
		if s.ctx.Err() != nil && err == nil {
			return
		}
		if err == nil {
			err = errors.New("it stopped by itself")
		}
		select {
		case s.failed <- fmt.Errorf("%s ended: %w", name, err):
		default:
		}
	})
}

// stop ends the parts and waits for them.
func (s *stage) stop() {
	s.cancel()
	s.wg.Wait()
}
