package coap

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/broker"
)

// libcoap finds libcoap's client. Without it the test is skipped, or fails
// when real peers are required.
func libcoap(t testing.TB) func(args ...string) *exec.Cmd {
	t.Helper()
	for _, name := range []string{"coap-client-notls", "coap-client-openssl", "coap-client"} {
		if path, err := exec.LookPath(name); err == nil {
			return func(args ...string) *exec.Cmd {
				ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
				t.Cleanup(cancel)
				return exec.CommandContext(ctx, path, args...)
			}
		}
	}
	if os.Getenv("GANTRY_REQUIRE_REAL") != "" {
		t.Fatal("coap-client is not installed (package libcoap3-bin)")
	}
	t.Skip("coap-client is not installed (package libcoap3-bin)")
	return nil
}

func output(t testing.TB, cmd *exec.Cmd) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	return string(out) + stderr.String()
}

func TestLibcoapPutAndGet(t *testing.T) {
	coap := libcoap(t)
	s, b := start(t, testConfig())
	o := subscribeTo(t, b, "#")
	url := "coap://" + s.Addr().String()
	require.Empty(t, output(t, coap("-m", "put", "-e", "21.5", "-t", "0", url+"/ps/plant/1/temp?retain=true&c=dev1")))
	m := o.next()
	require.Equal(t, "plant/1/temp", m.Topic)
	require.Equal(t, "21.5", string(m.Payload))
	require.Equal(t, "dev1", m.ClientID)
	require.Equal(t, broker.QoS(1), m.QoS)
	require.Equal(t, "text/plain;charset=utf-8", m.Properties.ContentType)
	require.Equal(t, "21.5", strings.TrimSpace(output(t, coap("-m", "get", url+"/ps/plant/1/temp"))))
	require.Empty(t, output(t, coap("-N", "-B", "2", "-m", "post", "-e", "non", url+"/ps/a")))
	require.Equal(t, broker.QoS(0), o.next().QoS)
	require.Contains(t, output(t, coap("-m", "get", url+"/ps/none")), "4.04")
	require.Contains(t, output(t, coap("-m", "get", url+"/.well-known/core")), "</ps>")
}

func TestLibcoapBlocks(t *testing.T) {
	coap := libcoap(t)
	b := newBroker(t, broker.Config{})
	s, err := New(testConfig(), b, nil, nil)
	require.NoError(t, err)
	distrust(s) // its client answers Echo by itself
	run(t, s)
	o := subscribeTo(t, b, "#")
	dir := t.TempDir()
	body := testBody(5000)
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	require.NoError(t, os.WriteFile(in, body, 0o600))
	url := "coap://" + s.Addr().String() + "/ps/file"
	for _, size := range []string{"1024", "256", "64"} {
		output(t, coap("-b", size, "-m", "put", "-f", in, url+"?retain=true"))
		require.Equal(t, body, o.next().Payload)
		require.Nil(t, o.poll())
		output(t, coap("-b", size, "-m", "get", "-o", out, url))
		got, err := os.ReadFile(out)
		require.NoError(t, err)
		require.Equal(t, body, got)
	}
	output(t, coap("-m", "put", "-f", in, url)) // without being told to
	require.Equal(t, body, o.next().Payload)
}

func TestLibcoapWithLoss(t *testing.T) {
	coap := libcoap(t)
	s, b := start(t, testConfig())
	o := subscribeTo(t, b, "#")
	in := filepath.Join(t.TempDir(), "in")
	body := testBody(5000)
	require.NoError(t, os.WriteFile(in, body, 0o600))
	// The client does not send its second and fifth datagram.
	output(t, coap("-l", "2,5", "-m", "put", "-f", in, "coap://"+s.Addr().String()+"/ps/file"))
	require.Equal(t, body, o.next().Payload)
	require.Nil(t, o.poll())
}

func TestLibcoapObserve(t *testing.T) {
	coap := libcoap(t)
	b := newBroker(t, broker.Config{})
	s, err := New(testConfig(), b, nil, nil)
	require.NoError(t, err)
	distrust(s)
	run(t, s)
	cmd := coap("-s", "3", "-w", "-m", "get", "coap://"+s.Addr().String()+"/ps/a/%2B")
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	require.Eventually(t, func() bool { return s.observers(t) == 1 }, patience, 5*time.Millisecond)
	large := strings.Repeat("large ", 500)
	for i, payload := range []string{"one", "two", large, "three"} {
		publish(t, b, &broker.Message{Topic: "a/b", Payload: []byte(payload), QoS: broker.QoS(i % 2)})
	}
	var lines []string
	for sc := bufio.NewScanner(stdout); sc.Scan(); {
		if line := sc.Text(); line != "" {
			lines = append(lines, line)
		}
	}
	require.NoError(t, cmd.Wait())
	require.Equal(t, "onetwo"+large+"three", strings.Join(lines, ""))
	require.Eventually(t, func() bool { return s.observers(t) == 0 }, patience, 5*time.Millisecond, "it deregisters at its end")
}
