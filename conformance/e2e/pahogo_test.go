//go:build unix

package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/autopaho"
	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	paho3 "github.com/eclipse/paho.mqtt.golang"
	"github.com/stretchr/testify/require"
)

// way is a transport by which Go clients come.
type way struct {
	name, network, addr string
	url                 func(addr string) string
	tls                 *tls.Config
}

func (d *doors) ways() []way {
	with := func(before, after string) func(string) string {
		return func(addr string) string { return before + addr + after }
	}
	return []way{
		{"tcp", "tcp", d.mqtt, with("mqtt://", ""), nil},
		{"tls", "tcp", d.tls, with("tls://", ""), d.deviceTLS()},
		{"ws", "tcp", d.ws, with("ws://", "/mqtt"), nil},
		{"wss", "tcp", d.wss, with("wss://", "/mqtt"), &tls.Config{RootCAs: d.authority.Pool}},
		{"unix", "unix", d.unix, with("unix://", ""), nil},
	}
}

// The Go clients of the Eclipse project, for 3.1, 3.1.1 and 5, over each
// transport.
func TestPahoGo(t *testing.T) {
	t.Parallel()
	d := openDoors(t, "")
	for _, w := range d.ways() {
		for version, open := range map[string]func(way) opener{
			"31": func(w way) opener { return w.paho3(3) }, "311": func(w way) opener { return w.paho3(4) }, "5": way.paho5,
		} {
			t.Run(version+"/"+w.name, func(t *testing.T) {
				t.Parallel()
				roundOf(t, version, func() *cable { return layCable(t, w.network, w.addr) }, open(w))
			})
		}
	}
}

type goPaho3 struct {
	c   paho3.Client
	got chan note
}

// paho3 opens clients of paho.mqtt.golang.
func (w way) paho3(version uint) opener {
	return func(t testing.TB, v visit) (foreign, bool) {
		f := &goPaho3{got: make(chan note, 100)}
		o := paho3.NewClientOptions().AddBroker(w.url(v.cable.addr)).SetClientID(v.id).SetCleanSession(v.clean).SetProtocolVersion(version).
			SetAutoReconnect(false).SetConnectTimeout(patience).SetTLSConfig(w.tls)
		o.SetDefaultPublishHandler(func(_ paho3.Client, m paho3.Message) {
			f.got <- note{m.Topic(), string(m.Payload()), m.Qos(), m.Retained()}
		})
		if v.will != nil {
			o.SetWill(v.will.topic, v.will.payload, v.will.qos, v.will.retained)
		}
		f.c = paho3.NewClient(o)
		token := f.c.Connect()
		require.NoError(t, wait(token))
		return f, token.(*paho3.ConnectToken).SessionPresent()
	}
}

func wait(token paho3.Token) error {
	if !token.WaitTimeout(patience) {
		return errors.New("no answer")
	}
	return token.Error()
}

func (f *goPaho3) subscribe(filter string, qos byte) error {
	return wait(f.c.Subscribe(filter, qos, nil))
}

func (f *goPaho3) publish(n note) error {
	return wait(f.c.Publish(n.topic, n.qos, n.retained, n.payload))
}

func (f *goPaho3) inbox() <-chan note { return f.got }
func (f *goPaho3) leave()             { f.c.Disconnect(250) }
func (f *goPaho3) abandon()           { f.c.Disconnect(0) }

type goPaho5 struct {
	c      *autopaho.ConnectionManager
	cancel context.CancelFunc
	got    chan note
}

// paho5 opens clients of paho.golang, which look after their connection.
func (w way) paho5() opener {
	return func(t testing.TB, v visit) (foreign, bool) {
		server, err := url.Parse(w.url(v.cable.addr))
		require.NoError(t, err)
		f, up := &goPaho5{got: make(chan note, 100)}, make(chan bool, 1)
		cfg := autopaho.ClientConfig{
			ServerUrls: []*url.URL{server}, TlsCfg: w.tls, KeepAlive: 30, CleanStartOnInitialConnection: v.clean,
			OnConnectionUp:   func(_ *autopaho.ConnectionManager, ack *paho.Connack) { up <- ack.SessionPresent },
			OnConnectionDown: func() bool { return false },
		}
		if w.network == "unix" {
			cfg.AttemptConnection = func(ctx context.Context, _ autopaho.ClientConfig, _ *url.URL) (net.Conn, error) {
				nc, err := (&net.Dialer{}).DialContext(ctx, "unix", v.cable.addr)
				return packets.NewThreadSafeConn(nc), err
			}
		}
		if !v.clean {
			cfg.SessionExpiryInterval = 60
		}
		if v.will != nil {
			cfg.WillMessage = &paho.WillMessage{Topic: v.will.topic, Payload: []byte(v.will.payload), QoS: v.will.qos, Retain: v.will.retained}
		}
		cfg.ClientID = v.id
		cfg.OnPublishReceived = []func(paho.PublishReceived) (bool, error){func(r paho.PublishReceived) (bool, error) {
			f.got <- note{r.Packet.Topic, string(r.Packet.Payload), r.Packet.QoS, r.Packet.Retain}
			return true, nil
		}}
		ctx, cancel := context.WithCancel(context.Background())
		f.cancel = cancel
		f.c, err = autopaho.NewConnection(ctx, cfg)
		require.NoError(t, err)
		t.Cleanup(f.abandon)
		select {
		case present := <-up:
			return f, present
		case <-time.After(patience):
			t.Fatalf("%s is not connected", v.id)
			return nil, false
		}
	}
}

func (f *goPaho5) subscribe(filter string, qos byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := f.c.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: filter, QoS: qos}}})
	return err
}

func (f *goPaho5) publish(n note) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := f.c.Publish(ctx, &paho.Publish{Topic: n.topic, Payload: []byte(n.payload), QoS: n.qos, Retain: n.retained})
	return err
}

func (f *goPaho5) inbox() <-chan note { return f.got }

func (f *goPaho5) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = f.c.Disconnect(ctx)
	f.abandon()
}

func (f *goPaho5) abandon() {
	f.cancel()
	<-f.c.Done()
}
