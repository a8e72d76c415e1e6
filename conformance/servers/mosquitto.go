//go:build unix

package servers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/user"
	"path/filepath"
	"testing"
	"time"

	"gantry/conformance/standin"
)

// probeWithin bounds one readiness probe.
const probeWithin = 2 * time.Second

// MosquittoBroker is a mosquitto of one test.
type MosquittoBroker struct {
	*Process
	// Addr is host:port of the plain MQTT listener.
	Addr string
}

// Mosquitto starts the Eclipse mosquitto broker. It lets everybody in and saves
// its state to Dir when it is stopped (mosquitto itself loses what it holds when
// it is killed, unless autosave_interval says otherwise). Lines are added to the
// end of its configuration file.
func Mosquitto(t testing.TB, lines ...string) *MosquittoBroker {
	t.Helper()
	program := Tool(t, "mosquitto")
	port, err := standin.FreePort()
	if err != nil {
		t.Fatalf("start mosquitto: %v", err)
	}
	dir := t.TempDir()
	conf, err := writeMosquittoConf(dir, port, lines)
	if err != nil {
		t.Fatalf("configure mosquitto: %v", err)
	}
	addr := standin.Loopback(port)
	probe := func(ctx context.Context) error { return exchange(ctx, addr, mqttConnect, isConnack) }
	return &MosquittoBroker{
		Process: launch(t, "mosquitto", dir, []string{program, "-c", conf}, probe),
		Addr:    addr,
	}
}

func writeMosquittoConf(dir string, port int, lines []string) (string, error) {
	self, err := user.Current()
	if err != nil {
		return "", err
	}
	conf := append([]string{
		// Started by root it would change to a user who cannot write to dir.
		"user " + self.Username,
		fmt.Sprintf("listener %d 127.0.0.1", port),
		"allow_anonymous true",
		"persistence true",
		"persistence_location " + dir + "/",
		"log_dest stderr",
	}, lines...)
	path := filepath.Join(dir, "mosquitto.conf")
	return path, writeLines(path, conf)
}

// mqttConnect is CONNECT of MQTT 3.1.1: clean session, keep alive 10 s, no
// client identifier.
const mqttConnect = "\x10\x0c\x00\x04MQTT\x04\x02\x00\x0a\x00\x00"

// isConnack accepts a refusal too: a broker that asks for a password is up.
func isConnack(answer []byte) error {
	if answer[0] != 0x20 {
		return fmt.Errorf("answer %#x is not a CONNACK", answer)
	}
	return nil
}

// exchange sends a request on a new connection and judges the first bytes of
// the answer, of which there is at least one.
func exchange(ctx context.Context, addr, request string, judge func([]byte) error) error {
	ctx, cancel := context.WithTimeout(ctx, probeWithin)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, request); err != nil {
		return err
	}
	answer := make([]byte, 64)
	n, err := conn.Read(answer)
	if n == 0 {
		return errors.Join(errors.New("no answer"), err)
	}
	return judge(answer[:n])
}
