package mqtt

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	paho5 "github.com/eclipse/paho.golang/paho"
	paho3 "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/require"

	"gantry/protocols/mqtt/wire"
)

// Clients of other code bases must agree with our reading of the standard.

func TestPaho3(t *testing.T) {
	r := newRig(t, Config{})
	for qos := range byte(3) {
		got := make(chan string, 100)
		sub := pahoV3(t, r, "sub")
		tok := sub.Subscribe("a/+", qos, func(_ paho3.Client, m paho3.Message) { got <- m.Topic() + "=" + string(m.Payload()) })
		require.True(t, tok.WaitTimeout(patience))
		require.NoError(t, tok.Error())
		pub := pahoV3(t, r, "pub")
		for i := range 100 {
			tok := pub.Publish(fmt.Sprintf("a/%d", i), qos, false, fmt.Sprint(i))
			require.True(t, tok.WaitTimeout(patience), "publish %d with QoS %d", i, qos)
			require.NoError(t, tok.Error())
		}
		for i := range 100 {
			require.Equal(t, fmt.Sprintf("a/%d=%d", i, i), receive(t, got))
		}
		sub.Disconnect(100)
		pub.Disconnect(100)
	}
}

func pahoV3(t *testing.T, r *rig, id string) paho3.Client {
	t.Helper()
	c := paho3.NewClient(paho3.NewClientOptions().AddBroker("tcp://" + r.srv.Addr().String()).SetClientID(id).SetAutoReconnect(false).SetOrderMatters(true))
	tok := c.Connect()
	require.True(t, tok.WaitTimeout(patience))
	require.NoError(t, tok.Error())
	t.Cleanup(func() { c.Disconnect(0) })
	return c
}

func receive[T any](t *testing.T, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		require.FailNow(t, "nothing received")
	}
	panic("unreachable")
}

func TestPaho5(t *testing.T) {
	r := newRig(t, Config{})
	ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
	defer cancel()
	got := make(chan *paho5.Publish, 100)
	sub := pahoV5(ctx, t, r, "sub", got)
	for qos := range byte(3) {
		filter := fmt.Sprintf("q%d/#", qos)
		id := int(qos) + 1
		_, err := sub.Subscribe(ctx, &paho5.Subscribe{
			Properties:    &paho5.SubscribeProperties{SubscriptionIdentifier: &id},
			Subscriptions: []paho5.SubscribeOptions{{Topic: filter, QoS: qos}},
		})
		require.NoError(t, err)
	}
	pub := pahoV5(ctx, t, r, "pub", nil)
	for i := range 90 {
		qos := byte(i % 3)
		expiry := uint32(60)
		res, err := pub.Publish(ctx, &paho5.Publish{
			QoS: qos, Topic: fmt.Sprintf("q%d/x", qos), Payload: []byte(fmt.Sprint(i)),
			Properties: &paho5.PublishProperties{
				MessageExpiry: &expiry, ContentType: "text/plain", ResponseTopic: "re", CorrelationData: []byte{1},
				User: paho5.UserProperties{{Key: "n", Value: fmt.Sprint(i)}},
			},
		})
		require.NoError(t, err)
		if qos > 0 {
			require.Zero(t, res.ReasonCode)
		}
	}
	for i := range 90 {
		m := receive(t, got)
		require.Equal(t, fmt.Sprint(i), string(m.Payload))
		require.Equal(t, i%3+1, *m.Properties.SubscriptionIdentifier)
		require.Equal(t, "text/plain", m.Properties.ContentType)
		require.Equal(t, fmt.Sprint(i), m.Properties.User.Get("n"))
		require.Equal(t, uint32(60), *m.Properties.MessageExpiry)
	}
	require.NoError(t, pub.Disconnect(&paho5.Disconnect{}))
	require.NoError(t, sub.Disconnect(&paho5.Disconnect{}))
}

func pahoV5(ctx context.Context, t *testing.T, r *rig, id string, got chan<- *paho5.Publish) *paho5.Client {
	t.Helper()
	nc, err := net.Dial("tcp", r.srv.Addr().String())
	require.NoError(t, err)
	c := paho5.NewClient(paho5.ClientConfig{
		Conn: nc,
		OnPublishReceived: []func(paho5.PublishReceived) (bool, error){func(p paho5.PublishReceived) (bool, error) {
			got <- p.Packet
			return true, nil
		}},
	})
	ack, err := c.Connect(ctx, &paho5.Connect{ClientID: id, CleanStart: true, KeepAlive: 30})
	require.NoError(t, err)
	require.Zero(t, ack.ReasonCode)
	require.Equal(t, uint16(1000), *ack.Properties.ReceiveMaximum)
	require.True(t, ack.Properties.SharedSubAvailable)
	return c
}

// tool finds a program, or skips the test where it is not installed.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("GANTRY_REQUIRE_REAL") == "1" {
		t.Fatalf("%s is required: %v", name, err)
	}
	t.Skipf("%s is not installed", name)
	return ""
}

func TestMosquittoClients(t *testing.T) {
	subTool, pubTool := tool(t, "mosquitto_sub"), tool(t, "mosquitto_pub")
	r := newRig(t, Config{})
	host, port, err := net.SplitHostPort(r.srv.Addr().String())
	require.NoError(t, err)
	for _, version := range []string{"31", "311", "5"} {
		for _, qos := range []string{"0", "1", "2"} {
			t.Run("v"+version+" QoS "+qos, func(t *testing.T) {
				common := []string{"-h", host, "-p", port, "-V", version, "-q", qos, "-t", "m/t"}
				ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
				defer cancel()
				sub := exec.CommandContext(ctx, subTool, append(common, "-C", "50", "-i", "msub")...)
				var out strings.Builder
				sub.Stdout, sub.Stderr = &out, &out
				require.NoError(t, sub.Start())
				eventually(t, func() bool {
					for _, s := range r.broker.Sessions() {
						if s.ClientID == "msub" && r.broker.Stats().Subscriptions == 1 {
							return true
						}
					}
					return false
				}, "subscribed")
				pub := exec.CommandContext(ctx, pubTool, append(common, "-l", "-i", "mpub")...)
				var want strings.Builder
				for i := range 50 {
					fmt.Fprintf(&want, "line %d\n", i)
				}
				pub.Stdin = strings.NewReader(want.String())
				text, err := pub.CombinedOutput()
				require.NoError(t, err, "%s", text)
				require.NoError(t, sub.Wait(), "%s", out.String())
				require.Equal(t, want.String(), out.String())
				eventually(t, func() bool { return r.srv.Connections() == 0 }, "clients gone")
			})
		}
	}
}

// Many clients come, publish, take over each other and go; nobody may hang.
func TestChurn(t *testing.T) {
	r := newRig(t, Config{})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 25 {
				churn(t, r, fmt.Sprintf("c%d", (g+i)%4), i)
			}
		})
	}
	wg.Wait()
	eventually(t, func() bool { return r.srv.Connections() == 0 }, "all gone")
}

func churn(t *testing.T, r *rig, id string, i int) {
	nc, err := net.Dial("tcp", r.srv.Addr().String())
	if err != nil {
		t.Error(err)
		return
	}
	defer nc.Close()
	packets := connectPacket(t, wire.V5, id, byte(i%2)<<1, "11 0000000a")
	packets = append(packets, raw(t, "82 09 0001 00 0003 'c/#' 02 32 09 0003 'c/1' 0002 00 'x' 34 09 0003 'c/2' 0003 00 'y' 62 02 0003")...)
	if i%3 == 0 {
		packets = append(packets, 0xe0, 0)
	}
	_, _ = nc.Write(packets)
	p := &peer{t: t, nc: nc, r: bufio.NewReader(nc)}
	for {
		h, _, err := p.next()
		if timedOut(err) {
			t.Errorf("%s: neither an answer nor the end", id)
		}
		if err != nil || h.Type == wire.PUBCOMP {
			return
		}
	}
}
