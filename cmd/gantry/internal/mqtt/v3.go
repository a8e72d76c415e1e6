package mqtt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"

	paho3 "github.com/eclipse/paho.mqtt.golang"
)

// quiesceMillis is how long the library may take to send DISCONNECT.
const quiesceMillis = 1000

type client3 struct {
	*loss
	paho paho3.Client

	mu      sync.Mutex // held while a message is handled, so that Close waits for the acknowledgement of what was taken
	stopped bool
}

func dial3(ctx context.Context, o Options) (Client, error) {
	c := &client3{loss: newLoss()}
	opts := paho3.NewClientOptions().AddBroker("tcp://" + o.Addr).SetClientID(o.ClientID).
		SetProtocolVersion(4).SetCleanSession(!o.Durable).SetKeepAlive(o.KeepAlive).
		SetUsername(o.Username).SetPassword(o.Password).
		SetConnectTimeout(answerTimeout).SetWriteTimeout(answerTimeout).
		SetAutoReconnect(false).SetConnectRetry(false).SetAutoAckDisabled(true).
		SetConnectionLostHandler(func(_ paho3.Client, err error) { c.lost(err) }).
		SetCustomOpenConnectionFn(func(*url.URL, paho3.ClientOptions) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", o.Addr) // without it the library reads proxy settings
		})
	if o.OnMessage != nil {
		opts.SetDefaultPublishHandler(func(_ paho3.Client, m paho3.Message) { c.received(m, o.OnMessage) })
	}
	c.paho = paho3.NewClient(opts)
	if err := wait(ctx, c.paho.Connect()); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *client3) received(m paho3.Message, f func(Message) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.stopped && f(Message{Topic: m.Topic(), Payload: m.Payload(), QoS: m.Qos(), Retain: m.Retained()}) {
		m.Ack()
	}
}

func (c *client3) Publish(ctx context.Context, m Message) error {
	return wait(ctx, c.paho.Publish(m.Topic, m.QoS, m.Retain, m.Payload))
}

func (c *client3) Subscribe(ctx context.Context, filters []string, qos byte) error {
	wanted := make(map[string]byte, len(filters))
	for _, f := range filters {
		wanted[f] = qos
	}
	token := c.paho.SubscribeMultiple(wanted, nil)
	if err := wait(ctx, token); err != nil {
		return err
	}
	granted := token.(*paho3.SubscribeToken).Result() // a refusal is no error of the token
	for _, f := range filters {
		if granted[f] >= 0x80 {
			return fmt.Errorf("subscription %s refused", f)
		}
	}
	return nil
}

func (c *client3) Close() {
	c.closing()
	c.mu.Lock()
	c.stopped = true
	c.mu.Unlock()
	c.paho.Disconnect(quiesceMillis)
}

// wait waits for the answer of the server.
func wait(ctx context.Context, t paho3.Token) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	select {
	case <-t.Done():
		return t.Error()
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return errors.New("no answer from the server")
		}
		return ctx.Err()
	}
}
