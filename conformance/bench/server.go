package main

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"gantry/conformance/pki"
	"gantry/conformance/standin"
)

// server is a program under load, in a folder of its own.
type server struct {
	cmd     *exec.Cmd
	dir     string
	addrs   map[transport]string // MQTT
	coap    string               // empty where there is none
	trusted *x509.CertPool       // who signed the certificate of its listeners
	out     bytes.Buffer
}

// starter starts a server for the groups that compare MQTT servers.
type starter struct {
	name  string
	start func(f *flags) (*server, error)
}

var mqttServers = []starter{
	{"gantry", func(f *flags) (*server, error) { return startGantry(f, "") }},
	{"mosquitto", func(*flags) (*server, error) { return startMosquitto("max_queued_messages 0") }},
}

// serversOver are those that a transport can be measured with.
func serversOver(over transport) []starter {
	if over == overQUIC {
		return mqttServers[:1]
	}
	return mqttServers
}

// startGantry starts the gateway with everything open on loopback. extra is
// YAML that is added to its configuration.
func startGantry(f *flags, extra string) (*server, error) {
	s, ports, err := newServer(7)
	if err != nil {
		return nil, err
	}
	s.addrs = map[transport]string{overTCP: ports[0], overTLS: ports[1], overWebSocket: ports[2], overQUIC: ports[6]}
	s.coap = ports[3]
	cert, err := s.certify()
	if err != nil {
		return nil, err
	}
	text := fmt.Sprintf(`data_dir: %q
log: {level: warn}
listeners:
  mqtt:
    - {name: tcp, bind: %q, max_connections: 200000}
    - {name: tls, bind: %q, max_connections: 200000, tls: {cert: %q, key: %q}}
    - {name: ws, bind: %q, max_connections: 200000, transport: websocket}
    - {name: quic, bind: %q, max_connections: 200000, transport: quic, tls: {cert: %q, key: %q}}
  coap: [{name: udp, bind: %q, rate: 0}]
  http: [{name: http, bind: %q}]
admin: {bind: %q}
%s`, filepath.Join(s.dir, "data"), ports[0], ports[1], cert.Cert, cert.Key, ports[2], ports[6], cert.Cert, cert.Key, ports[3], ports[4], ports[5], extra)
	file := filepath.Join(s.dir, "gantry.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return s, s.start(ports[:3], f.Gantry, "run", "-c", file)
}

// startMosquitto starts mosquitto as the peer of MQTT, with a line that is
// added to the general part of its configuration.
func startMosquitto(line string) (*server, error) {
	s, ports, err := newServer(3)
	if err != nil {
		return nil, err
	}
	s.addrs = map[transport]string{overTCP: ports[0], overTLS: ports[1], overWebSocket: ports[2]}
	cert, err := s.certify()
	if err != nil {
		return nil, err
	}
	self, err := user.Current()
	if err != nil {
		return nil, err
	}
	lo, err := loopbackName() // with an address, its WebSocket listener takes all addresses
	if err != nil {
		return nil, err
	}
	text := fmt.Sprintf(`user %s
allow_anonymous true
persistence false
%s
set_tcp_nodelay true
log_type error
listener %s 127.0.0.1
listener %s 127.0.0.1
certfile %s
keyfile %s
listener %s %s
protocol websockets
`, self.Username, line, port(ports[0]), port(ports[1]), cert.Cert, cert.Key, port(ports[2]), lo)
	file := filepath.Join(s.dir, "mosquitto.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	program, err := exec.LookPath("mosquitto")
	if err != nil {
		program = "/usr/sbin/mosquitto"
	}
	return s, s.start(ports, program, "-c", file)
}

func port(addr string) string {
	_, p, _ := net.SplitHostPort(addr)
	return p
}

func loopbackName() (string, error) {
	all, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(all, func(i net.Interface) bool { return i.Flags&net.FlagLoopback != 0 })
	if i < 0 {
		return "", errors.New("this machine has no loopback interface")
	}
	return all[i].Name, nil
}

// certify makes the certificate of the server's listeners.
func (s *server) certify() (pki.Files, error) {
	a, err := pki.Create(s.dir)
	if err != nil {
		return pki.Files{}, err
	}
	s.trusted = a.Pool
	f := pki.Files{Cert: filepath.Join(s.dir, "server.pem"), Key: filepath.Join(s.dir, "server.key")}
	return f, a.Sign(f, "server", nil)
}

// startLibcoap starts libcoap's example server as the peer of CoAP.
func startLibcoap() (*server, error) {
	s, ports, err := newServer(1)
	if err != nil {
		return nil, err
	}
	s.coap = ports[0]
	if err := s.start(nil, "coap-server-notls", "-A", "127.0.0.1", "-p", port(s.coap), "-v", "0"); err != nil {
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

// start runs the program and waits until all addrs take connections.
func (s *server) start(addrs []string, program string, args ...string) error {
	s.cmd = exec.Command(program, args...)
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	if err := s.cmd.Start(); err != nil {
		return err
	}
	deadline := time.Now().Add(10 * time.Second)
	for _, addr := range addrs {
		if err := awaitTCP(addr, deadline); err != nil {
			s.stop()
			return fmt.Errorf("%s does not answer on %s: %w\n%s", program, addr, err, s.out.String())
		}
	}
	return nil
}

func awaitTCP(addr string, deadline time.Time) error {
	for ; ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(deadline) {
			return err
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
