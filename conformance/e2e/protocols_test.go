//go:build unix

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/conformance/servers"
)

// toolsWithin bounds a foreign client that sends thousands of messages.
const toolsWithin = 2 * time.Minute

// tool runs a foreign client.
func tool(ctx context.Context, stdin, path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, toolsWithin)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s%s", path, strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String(), nil
}

func hostPort(t testing.TB, addr string) (host, port string) {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	require.NoError(t, err)
	return host, port
}

// crew runs functions at once and fails the test with the first error.
type crew struct {
	wg   sync.WaitGroup
	mu   sync.Mutex // covers errs
	errs []error
}

func (c *crew) run(f func() error) {
	c.wg.Go(func() {
		if err := f(); err != nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.errs = append(c.errs, err)
		}
	})
}

func (c *crew) wait(t testing.TB) {
	t.Helper()
	c.wg.Wait()
	if len(c.errs) > 0 {
		t.Fatalf("%d errors, the first: %v", len(c.errs), c.errs[0])
	}
}

// Ten thousand messages by each protocol, all at once, arrive exactly and in
// the order of their devices.
func TestEveryProtocolArrivesExactly(t *testing.T) {
	eachUplink(t, func(t *testing.T, u uplink) {
		g := startGateway(t, bridgeTo(u, "max_bytes: 256MiB"))
		l, c := &ledger{}, &crew{}
		g.mosquittoPub(l, c)
		g.libcoap(l, c)
		g.curl(l, c)
		each := few(500, 25)
		var devices []device
		for i := range 20 {
			coap, http := fmt.Sprintf("coap-%d", i), fmt.Sprintf("http-%d", i)
			devices = append(devices,
				&coapDevice{addr: g.coap, work: work{account: l.open(coap, 0), topic: "plant/coap/" + coap, limit: each}},
				&httpDevice{addr: g.http, work: work{account: l.open(http, 0), topic: "plant/http/" + http, limit: each}})
		}
		workers := employ(t, devices...)
		c.wait(t)
		workers.finish(t, toolsWithin)
		v := l.settle(g, u)
		v.requireExact(t)
		require.Equal(t, l.sent(), v.acknowledged)
		require.Zero(t, g.bridge().DeadLetters)
		readWithKcat(t, u, min(500, v.delivered))
	})
}

// all acknowledges an account, for clients that end well only when everything
// was acknowledged.
func (a *account) all() {
	for n := range a.sent {
		a.ack(n)
	}
}

// lines are the payloads of n new messages, one a line.
func (a *account) lines(n int) string {
	var b strings.Builder
	for range n {
		b.Write(a.payload(a.next()))
		b.WriteByte('\n')
	}
	return b.String()
}

// mosquittoPub publishes 10,000 messages of QoS 1 and 2, and some of QoS 0, with
// both versions.
func (g *gateway) mosquittoPub(l *ledger, c *crew) {
	path := servers.Tool(g.t, "mosquitto_pub")
	host, port := hostPort(g.t, g.mqtt)
	for _, version := range []string{"311", "5"} {
		for qos, n := range []int{few(500, 50), few(2500, 50), few(2500, 50)} {
			a := l.open(fmt.Sprintf("mosquitto-%s-%d", version, qos), 0)
			lines := a.lines(n)
			c.run(func() error {
				_, err := tool(context.Background(), lines, path, "-h", host, "-p", port, "-V", version, "-q", fmt.Sprint(qos),
					"-i", a.device, "-t", "plant/mqtt/"+a.device, "-l")
				a.all()
				return err
			})
		}
	}
}

// libcoap sends a few dozen confirmable PUTs, each from a process of its own.
func (g *gateway) libcoap(l *ledger, c *crew) {
	path := servers.Tool(g.t, "coap-client-notls", "coap-client")
	a := l.open("libcoap", 0)
	c.run(func() error {
		for range few(36, 4) {
			n := a.next()
			_, err := tool(context.Background(), "", path, "-m", "put", "-t", "50", "-e", string(a.payload(n)), "-B", "10",
				"coap://"+g.coap+"/ps/plant/coap/libcoap?c=libcoap")
			if err != nil {
				return err
			}
			a.ack(n)
		}
		return nil
	})
}

// curl posts a few messages raw, a few in EMQX's form, and a few in bulk.
func (g *gateway) curl(l *ledger, c *crew) {
	path := servers.Tool(g.t, "curl")
	a := l.open("curl", 0)
	post := func(url string, body []byte) error {
		_, err := tool(context.Background(), string(body), path, "--silent", "--show-error", "--fail", "--max-time", "20",
			"-H", "X-Client-Id: curl", "-H", "Content-Type: application/json", "--data-binary", "@-", "http://"+g.http+url)
		return err
	}
	type message struct {
		Topic   string `json:"topic"`
		Payload string `json:"payload"`
		QoS     int    `json:"qos"`
	}
	form := func() message {
		return message{"plant/http/curl", string(a.payload(a.next())), 1}
	}
	c.run(func() error {
		for range few(8, 2) {
			one, err := json.Marshal(form())
			if err != nil {
				return err
			}
			many, err := json.Marshal([]message{form(), form(), form()})
			if err != nil {
				return err
			}
			for _, p := range []struct {
				url  string
				body []byte
			}{{"/api/v5/publish", one}, {"/api/v5/publish/bulk", many}, {"/v1/topics/plant/http/curl", a.payload(a.next())}} {
				if err := post(p.url, p.body); err != nil {
					return err
				}
			}
		}
		a.all()
		return nil
	})
}

// readWithKcat reads as many records with a consumer of another code base.
func readWithKcat(t *testing.T, u uplink, n int) {
	t.Helper()
	path := servers.Tool(t, "kcat")
	out, err := tool(t.Context(), "", path, "-b", u.address(), "-C", "-t", topic, "-o", "beginning", "-c", fmt.Sprint(n), "-q", "-f", `%k %s\n`)
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	require.Len(t, lines, n)
	for _, line := range lines {
		key, value, _ := strings.Cut(line, " ")
		require.Equal(t, key, parseReading(t, []byte(value)).Device)
	}
}
