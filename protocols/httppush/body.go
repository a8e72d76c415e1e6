package httppush

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"gantry/broker"
)

// budget bounds the bytes of all bodies that are held at a time.
type budget struct {
	max  int64
	used atomic.Int64
}

// share is what one request has taken of a budget.
type share struct {
	budget *budget
	taken  int64
	once   sync.Once
}

func (s *share) take(n int) bool {
	if s.budget.used.Add(int64(n)) > s.budget.max {
		s.budget.used.Add(-int64(n))
		return false
	}
	s.taken += int64(n)
	return true
}

// release gives everything back. Only the first call counts.
func (s *share) release() { s.once.Do(func() { s.budget.used.Add(-s.taken) }) }

var errBudget = errors.New("too many bytes wait for the broker")

// accountant takes from the share as the body arrives, so that a client which
// announces a large body and sends nothing holds nothing.
type accountant struct {
	from  io.Reader
	share *share
}

func (a accountant) Read(p []byte) (int, error) {
	n, err := a.from.Read(p)
	if n > 0 && !a.share.take(n) {
		return 0, errBudget
	}
	return n, err
}

// readBody reads the whole body. The share is the caller's to release, also
// after an error.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request) ([]byte, *share, error) {
	sh := &share{budget: &s.bytes}
	if enc := r.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return nil, sh, fail(http.StatusUnsupportedMediaType, "content coding %q is not supported", enc)
	}
	if r.ContentLength > int64(s.cfg.MaxBody) {
		return nil, sh, s.tooLarge()
	}
	var buf bytes.Buffer
	if r.ContentLength > 0 {
		buf.Grow(int(min(r.ContentLength, 64<<10)))
	}
	_, err := buf.ReadFrom(accountant{http.MaxBytesReader(w, r.Body, int64(s.cfg.MaxBody)), sh})
	if err != nil {
		return nil, sh, s.bodyFailure(err)
	}
	// The wait for the broker must not count as time to send the body. net/http
	// watches for a client that leaves, and takes a read that runs into the
	// deadline for one; when there is no body it has done so from the start.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	return buf.Bytes(), sh, nil
}

func (s *Server) bodyFailure(err error) error {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return s.tooLarge()
	case errors.Is(err, errBudget):
		s.metrics.refused.WithLabelValues("bytes").Inc()
		return refuse(broker.ServerBusy, "%s", errBudget)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fail(http.StatusRequestTimeout, "the body did not arrive within %s", s.cfg.BodyTimeout)
	}
	return badRequest("the body cannot be read")
}

func (s *Server) tooLarge() error {
	return refuse(broker.PacketTooLarge, "the body is longer than %d bytes", s.cfg.MaxBody)
}
