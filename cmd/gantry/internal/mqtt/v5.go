package mqtt

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"sync"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
	"github.com/eclipse/paho.golang/paho/session/state"
)

type client5 struct {
	*loss
	paho    *paho.Client
	session *takingSession
}

func dial5(ctx context.Context, o Options) (Client, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", o.Addr)
	if err != nil {
		return nil, err
	}
	c := &client5{loss: newLoss(), session: &takingSession{State: state.NewInMemory(), onMessage: o.OnMessage}}
	c.paho = paho.NewClient(paho.ClientConfig{
		Conn:              conn,
		Session:           c.session,
		PacketTimeout:     answerTimeout,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){c.session.received},
		OnClientError:     c.lost,
		OnServerDisconnect: func(d *paho.Disconnect) {
			c.lost(fmt.Errorf("server disconnected: %s", (&packets.Disconnect{ReasonCode: d.ReasonCode}).Reason()))
		},
	})
	ack, err := c.paho.Connect(ctx, connect5(o))
	if ack != nil && ack.ReasonCode >= 0x80 {
		err = fmt.Errorf("refused: %s", (&packets.Connack{ReasonCode: ack.ReasonCode}).Reason())
	}
	if err != nil {
		return nil, errors.Join(err, c.session.Close())
	}
	return c, nil
}

func connect5(o Options) *paho.Connect {
	cp := &paho.Connect{
		ClientID: o.ClientID, KeepAlive: uint16(o.KeepAlive.Seconds()), CleanStart: !o.Durable,
		Username: o.Username, UsernameFlag: o.Username != "",
		Password: []byte(o.Password), PasswordFlag: o.Password != "",
	}
	if o.Durable {
		never := uint32(math.MaxUint32)
		cp.Properties = &paho.ConnectProperties{SessionExpiryInterval: &never}
	}
	return cp
}

func (c *client5) Publish(ctx context.Context, m Message) error {
	res, err := c.paho.Publish(ctx, &paho.Publish{Topic: m.Topic, Payload: m.Payload, QoS: m.QoS, Retain: m.Retain})
	if res != nil && res.ReasonCode >= 0x80 {
		return fmt.Errorf("refused: %s", (&packets.Pubrec{ReasonCode: res.ReasonCode}).Reason())
	}
	return err
}

func (c *client5) Subscribe(ctx context.Context, filters []string, qos byte) error {
	s := &paho.Subscribe{}
	for _, f := range filters {
		s.Subscriptions = append(s.Subscriptions, paho.SubscribeOptions{Topic: f, QoS: qos})
	}
	ack, err := c.paho.Subscribe(ctx, s)
	if ack == nil {
		return err
	}
	for i, code := range ack.Reasons {
		if code >= 0x80 && i < len(filters) {
			return fmt.Errorf("subscription %s refused: %s", filters[i], (&packets.Suback{Reasons: []byte{code}}).Reason(0))
		}
	}
	return err
}

func (c *client5) Close() {
	c.closing()
	c.session.stop()
	_ = c.paho.Disconnect(&paho.Disconnect{}) // the connection may be gone already
	_ = c.session.Close()
}

// takingSession is the library's session state, which acknowledges only messages that were taken. The library calls received and then Ack for each
// message, on one goroutine.
type takingSession struct {
	*state.State
	onMessage func(Message) bool

	mu      sync.Mutex // held from received to the end of Ack, so that stop waits for the acknowledgement of what was taken
	stopped bool
	taken   bool
}

func (s *takingSession) received(p paho.PublishReceived) (bool, error) {
	s.mu.Lock()
	s.taken = !s.stopped && s.onMessage != nil &&
		s.onMessage(Message{Topic: p.Packet.Topic, Payload: p.Packet.Payload, QoS: p.Packet.QoS, Retain: p.Packet.Retain})
	return true, nil
}

func (s *takingSession) Ack(pb *packets.Publish) error {
	defer s.mu.Unlock()
	if !s.taken {
		return nil
	}
	return s.State.Ack(pb)
}

func (s *takingSession) stop() {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
}
