//go:build unix

package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	// readyWithin is generous because a shared build machine may start a JVM
	// while it compiles.
	readyWithin = 90 * time.Second
	stopWithin  = 30 * time.Second
	pollEvery   = 20 * time.Millisecond
	// logTail is how much of a server's output a failed test shows.
	logTail = 4096
)

// Process is a server program that belongs to one test. Its methods may be
// called from any goroutine except Restart, which belongs to the goroutine that
// runs the test. Every started process is killed when the test ends.
type Process struct {
	// Dir is the server's own folder: configuration, data and output. It is
	// removed when the test ends.
	Dir string

	t     testing.TB
	name  string
	argv  []string
	env   []string                        // nil means that of the test program
	probe func(ctx context.Context) error // nil once the server answers its protocol

	mu   sync.Mutex // covers the rest
	run  *run
	code int // of the last life that ended
}

// run is one life of a process.
type run struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed once the process has been waited for
	err   error         // why it ended; read after ended is closed
}

// Program describes a server that this package has no constructor for.
type Program struct {
	Name string // for messages
	Dir  string // becomes Process.Dir; the program runs there
	Argv []string
	Env  []string // nil means that of the test program
	// Answers returns nil once the server is ready. It is called until then, at
	// the start and at each restart.
	Answers func(ctx context.Context) error
}

// Start runs the program until the test ends, and returns once it answers.
func Start(t testing.TB, program Program) *Process {
	t.Helper()
	p := &Process{
		Dir: program.Dir, t: t, name: program.Name, argv: program.Argv, env: program.Env, probe: program.Answers,
	}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("end of %s output:\n%s", p.name, p.tail())
		}
	})
	p.start()
	return p
}

// launch starts argv in dir and waits until probe succeeds.
func launch(t testing.TB, name, dir string, argv []string, probe func(context.Context) error) *Process {
	t.Helper()
	return Start(t, Program{Name: name, Dir: dir, Argv: argv, Answers: probe})
}

// PID is the process id of the present life, or 0 while the server is down.
func (p *Process) PID() int {
	r := p.current()
	if r == nil {
		return 0
	}
	return r.cmd.Process.Pid
}

// Kill ends the server as a crash would, with SIGKILL, and returns when the
// process is gone. It does nothing when the server is down already.
func (p *Process) Kill() {
	p.t.Helper()
	p.end(syscall.SIGKILL)
}

// Stop asks the server to shut down, with SIGTERM, and returns when the process
// is gone. A server that takes longer than 30 seconds fails the test and is
// killed.
func (p *Process) Stop() {
	p.t.Helper()
	p.end(syscall.SIGTERM)
}

// Pause freezes the server with SIGSTOP: its connections stay open and nobody
// answers.
func (p *Process) Pause() {
	p.t.Helper()
	p.signal(syscall.SIGSTOP)
}

// Resume ends a Pause.
func (p *Process) Resume() {
	p.t.Helper()
	p.signal(syscall.SIGCONT)
}

// Restart starts the server again on the same port with the same data and
// returns when it answers. A running server is stopped first.
func (p *Process) Restart() {
	p.t.Helper()
	p.Stop()
	p.start()
}

// ExitCode is the exit code of the last life, after Stop or Kill: -1 when a
// signal ended it.
func (p *Process) ExitCode() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.code
}

// Output is everything the server has printed, over all its lives.
func (p *Process) Output() string {
	out, err := os.ReadFile(p.logPath())
	if err != nil {
		return err.Error()
	}
	return string(out)
}

func (p *Process) logPath() string { return filepath.Join(p.Dir, "output.log") }

func (p *Process) tail() string {
	out := p.Output()
	return out[max(0, len(out)-logTail):]
}

func (p *Process) current() *run {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.run
}

func (p *Process) start() {
	p.t.Helper()
	r, err := p.exec()
	if err != nil {
		p.t.Fatalf("start %s: %v", p.name, err)
	}
	if err := p.awaitReady(r); err != nil {
		p.t.Fatalf("wait for %s: %v", p.name, err)
	}
}

func (p *Process) exec() (*run, error) {
	out, err := os.OpenFile(p.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }()
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = p.Dir, p.env, out, out
	cmd.SysProcAttr = dieWithParent()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r := &run{cmd: cmd, ended: make(chan struct{})}
	p.mu.Lock()
	p.run = r
	p.mu.Unlock()
	go func() { // ends with the process, which end waits for
		r.err = cmd.Wait()
		close(r.ended)
	}()
	return r, nil
}

// awaitReady probes until the server answers, it exits, or time runs out.
func (p *Process) awaitReady(r *run) error {
	ctx, cancel := context.WithTimeout(context.Background(), readyWithin)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := p.probe(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-r.ended:
			return fmt.Errorf("it ended before it answered: %w", errors.Join(r.err, err))
		case <-ctx.Done():
			return fmt.Errorf("no answer within %s: %w", readyWithin, err)
		case <-tick.C:
		}
	}
}

// end sends sig and waits until the process is gone.
func (p *Process) end(sig syscall.Signal) {
	p.t.Helper()
	p.mu.Lock()
	r := p.run
	p.run = nil
	p.mu.Unlock()
	if r == nil {
		return
	}
	p.send(r, sig)
	if sig != syscall.SIGKILL {
		p.send(r, syscall.SIGCONT) // a paused process acts on nothing else
	}
	select {
	case <-r.ended:
	case <-time.After(stopWithin):
		p.t.Errorf("%s still ran %s after %s", p.name, stopWithin, sig)
		p.send(r, syscall.SIGKILL)
		<-r.ended
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.code = r.cmd.ProcessState.ExitCode()
}

func (p *Process) signal(sig syscall.Signal) {
	p.t.Helper()
	r := p.current()
	if r == nil {
		p.t.Errorf("send %s to %s: it is not running", sig, p.name)
		return
	}
	p.send(r, sig)
}

func (p *Process) send(r *run, sig syscall.Signal) {
	p.t.Helper()
	if err := r.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("send %s to %s: %v", sig, p.name, err)
	}
}
