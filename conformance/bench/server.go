package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"gantry/conformance/standin"
)

// server is a program under load, in a folder of its own.
type server struct {
	cmd  *exec.Cmd
	dir  string
	addr string // MQTT
	coap string // empty where there is none
	out  bytes.Buffer
}

// startGantry starts the gateway with everything open on loopback. extra is
// YAML that is added to its configuration.
func startGantry(f *flags, extra string) (*server, error) {
	s, ports, err := newServer(4)
	if err != nil {
		return nil, err
	}
	s.addr, s.coap = ports[0], ports[1]
	text := fmt.Sprintf(`data_dir: %q
log: {level: warn}
listeners:
  mqtt: [{name: tcp, bind: %q, max_connections: 20000}]
  coap: [{name: udp, bind: %q, rate: 0}]
  http: [{name: http, bind: %q}]
admin: {bind: %q}
%s`, filepath.Join(s.dir, "data"), ports[0], ports[1], ports[2], ports[3], extra)
	file := filepath.Join(s.dir, "gantry.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return s, s.start(s.addr, f.Gantry, "run", "-c", file)
}

func startMosquitto(_ *flags, _ string) (*server, error) {
	s, ports, err := newServer(1)
	if err != nil {
		return nil, err
	}
	s.addr = ports[0]
	_, port, _ := net.SplitHostPort(s.addr)
	text := fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous true\npersistence false\nmax_queued_messages 0\nset_tcp_nodelay true\nlog_type error\n", port)
	file := filepath.Join(s.dir, "mosquitto.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	program, err := exec.LookPath("mosquitto")
	if err != nil {
		program = "/usr/sbin/mosquitto"
	}
	return s, s.start(s.addr, program, "-c", file)
}

// startLibcoap starts libcoap's example server as the peer of CoAP.
func startLibcoap() (*server, error) {
	s, ports, err := newServer(1)
	if err != nil {
		return nil, err
	}
	s.coap = ports[0]
	_, port, _ := net.SplitHostPort(s.coap)
	if err := s.start("", "coap-server-notls", "-A", "127.0.0.1", "-p", port, "-v", "0"); err != nil {
		return nil, err
	}
	if err := awaitCoAP(s.coap); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

func newServer(ports int) (s *server, addrs []string, err error) {
	s = &server{}
	if s.dir, err = os.MkdirTemp("", "gantry-bench-"); err != nil {
		return nil, nil, err
	}
	for range ports {
		port, err := standin.FreePort()
		if err != nil {
			return nil, nil, err
		}
		addrs = append(addrs, standin.Loopback(port))
	}
	return s, addrs, nil
}

// start runs the program and waits until addr takes connections.
func (s *server) start(addr, program string, args ...string) error {
	s.cmd = exec.Command(program, args...)
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	if err := s.cmd.Start(); err != nil {
		return err
	}
	if addr == "" {
		return nil
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(deadline) {
			s.stop()
			return fmt.Errorf("%s does not answer on %s: %w\n%s", program, addr, err, s.out.String())
		}
	}
}

func (s *server) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		_ = s.cmd.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(15 * time.Second):
		_ = s.cmd.Process.Kill()
		<-done
	}
	os.RemoveAll(s.dir) //nolint:errcheck // a temporary folder
}

// cpu is the time that the process has used, in user and in system mode.
func (s *server) cpu() time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	// Fields 14 and 15, in ticks of 10 ms; the name in field 2 may hold spaces.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	var ticks int64
	for _, i := range []int{11, 12} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// resident is the memory of the process in bytes.
func (s *server) resident() (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0, errors.New("unexpected form of statm")
	}
	pages, err := strconv.ParseFloat(fields[1], 64)
	return pages * float64(os.Getpagesize()), err
}
