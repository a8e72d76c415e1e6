package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"gantry/gateway/admin"
)

// screen shows the table: in place on a terminal, otherwise line after line
// and less often.
type screen struct {
	out      io.Writer
	terminal bool
	every    time.Duration
	lines    int // of the table on the terminal now
	start    time.Time
	down     chan bool
	isDown   bool
	drawn    time.Time
}

func newScreen(out io.Writer) *screen {
	s := &screen{out: out, every: 5 * time.Second, start: time.Now(), down: make(chan bool, 4)}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		s.terminal, s.every = true, 250*time.Millisecond
	}
	return s
}

// uplink notes a change of the uplink; it may be called from any goroutine.
func (s *screen) uplink(up bool) { s.down <- !up }

// rows are the lines of the table below its head.
type rows struct {
	protocols []string
	totals    []totals
	bridge    *admin.Bridge
}

// rows asks the gateway for its bridge as an operator would.
func (l *lab) rows() rows {
	var r rows
	for _, p := range protocols {
		r.protocols = append(r.protocols, p.name)
		r.totals = append(r.totals, l.ledger.byProtocol(p.name))
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if bridges, err := l.admin.Bridges(ctx); err == nil && len(bridges) > 0 {
		r.bridge = &bridges[0]
	}
	return r
}

func (s *screen) draw(r rows) {
	for {
		select {
		case s.isDown = <-s.down:
			continue
		default:
		}
		break
	}
	text := s.render(r)
	if s.terminal && s.lines > 0 {
		fmt.Fprintf(s.out, "\x1b[%dA\x1b[J", s.lines)
	}
	fmt.Fprint(s.out, text)
	s.drawn = time.Now()
	s.lines = strings.Count(text, "\n")
}

// end draws the table for the last time and leaves it on the terminal.
func (s *screen) end(r rows) {
	if s.terminal || time.Since(s.drawn) > time.Second {
		s.draw(r)
	}
	s.lines = 0
}

func (s *screen) render(r rows) string {
	var b strings.Builder
	uplink := "up"
	if s.isDown {
		uplink = "CUT"
	}
	fmt.Fprintf(&b, "%5.1fs  uplink %s\n", time.Since(s.start).Seconds(), uplink)
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "protocol\tdevices\tsent\tacknowledged\tdelivered\t")
	for i, name := range r.protocols {
		p := &r.totals[i]
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t\n", name, p.devices, p.sent, p.acknowledged, p.delivered)
	}
	t.Flush() //nolint:errcheck // into memory
	if br := r.bridge; br != nil {
		fmt.Fprintf(&b, "  bridge %s: %s, queued %d (%d bytes), delivered %d, oldest %.1fs\n",
			br.Name, br.State, br.QueuedRecords, br.QueuedBytes, br.Delivered, br.OldestAgeSeconds)
	}
	b.WriteByte('\n')
	return b.String()
}
