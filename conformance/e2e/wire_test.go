//go:build unix

package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/require"
)

const (
	v311 = 4
	v5   = 5
)

// wire is an MQTT connection that leaves every decision to its user: what is
// acknowledged, when, and what is sent again.
type wire struct {
	conn    net.Conn
	version byte
	in      *bufio.Reader
	out     bytes.Buffer // what the next flush sends
}

// hello are the settings of a CONNECT.
type hello struct {
	version    byte
	id         string
	clean      bool
	will       *packets.Packet
	keepalive  uint16
	sendAtMost uint16 // Receive Maximum, 0 = the default
	expirySecs uint32 // of the session, version 5
}

// dialMQTT connects and returns the CONNACK, which may be a refusal.
func dialMQTT(ctx context.Context, addr string, h hello) (*wire, *packets.Packet, error) {
	conn, err := (&net.Dialer{Timeout: patience}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	w := &wire{conn: conn, version: h.version, in: bufio.NewReaderSize(conn, 1<<16)}
	p := &packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connect}}
	p.Connect.ProtocolName, p.Connect.ClientIdentifier = []byte("MQTT"), h.id
	p.Connect.Clean, p.Connect.Keepalive = h.clean, h.keepalive
	if h.will != nil {
		p.Connect.WillFlag, p.Connect.WillTopic = true, h.will.TopicName
		p.Connect.WillPayload, p.Connect.WillQos = h.will.Payload, h.will.FixedHeader.Qos
	}
	if h.version == v5 {
		p.Properties.SessionExpiryInterval, p.Properties.SessionExpiryIntervalFlag = h.expirySecs, h.expirySecs > 0
		p.Properties.ReceiveMaximum = h.sendAtMost
	}
	ack, err := w.ask(p, packets.Connack)
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return w, ack, nil
}

// put adds a packet to what the next flush sends.
func (w *wire) put(p *packets.Packet) error {
	p.ProtocolVersion = w.version
	switch p.FixedHeader.Type {
	case packets.Connect:
		return p.ConnectEncode(&w.out)
	case packets.Publish:
		return p.PublishEncode(&w.out)
	case packets.Puback:
		return p.PubackEncode(&w.out)
	case packets.Pubrec:
		return p.PubrecEncode(&w.out)
	case packets.Pubrel:
		p.FixedHeader.Qos = 1
		return p.PubrelEncode(&w.out)
	case packets.Pubcomp:
		return p.PubcompEncode(&w.out)
	case packets.Subscribe:
		p.FixedHeader.Qos = 1
		return p.SubscribeEncode(&w.out)
	case packets.Disconnect:
		return p.DisconnectEncode(&w.out)
	}
	return fmt.Errorf("this client sends no packets of type %d", p.FixedHeader.Type)
}

func (w *wire) flush() error {
	if err := w.conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err := w.out.WriteTo(w.conn)
	return err
}

// read waits for a packet, for as long as patience or the given time.
func (w *wire) read(within time.Duration) (*packets.Packet, error) {
	if err := w.conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		return nil, err
	}
	first, err := w.in.ReadByte()
	if err != nil {
		return nil, err
	}
	p := &packets.Packet{ProtocolVersion: w.version}
	if err := p.FixedHeader.Decode(first); err != nil {
		return nil, err
	}
	if p.FixedHeader.Remaining, _, err = packets.DecodeLength(w.in); err != nil {
		return nil, err
	}
	body := make([]byte, p.FixedHeader.Remaining)
	if _, err := io.ReadFull(w.in, body); err != nil {
		return nil, err
	}
	return p, decode(p, body)
}

func decode(p *packets.Packet, body []byte) error {
	switch p.FixedHeader.Type {
	case packets.Connack:
		return p.ConnackDecode(body)
	case packets.Publish:
		return p.PublishDecode(body)
	case packets.Puback:
		return p.PubackDecode(body)
	case packets.Pubrec:
		return p.PubrecDecode(body)
	case packets.Pubrel:
		return p.PubrelDecode(body)
	case packets.Pubcomp:
		return p.PubcompDecode(body)
	case packets.Suback:
		return p.SubackDecode(body)
	case packets.Disconnect:
		if len(body) == 1 { // this decoder takes a reason code without properties for none
			p.ReasonCode = body[0]
			return nil
		}
		return p.DisconnectDecode(body)
	}
	return fmt.Errorf("a server sends no packets of type %d", p.FixedHeader.Type)
}

// send puts a packet and flushes.
func (w *wire) send(p *packets.Packet) error { return errors.Join(w.put(p), w.flush()) }

// ask sends a packet and returns the answer, which must be of the given type.
func (w *wire) ask(p *packets.Packet, want byte) (*packets.Packet, error) {
	if err := w.send(p); err != nil {
		return nil, err
	}
	answer, err := w.read(patience)
	if err != nil {
		return nil, fmt.Errorf("answer to packet type %d: %w", p.FixedHeader.Type, err)
	}
	if answer.FixedHeader.Type != want {
		return nil, fmt.Errorf("answer to packet type %d is of type %d, reason %#x", p.FixedHeader.Type, answer.FixedHeader.Type, answer.ReasonCode)
	}
	return answer, nil
}

func (w *wire) subscribe(filter string, qos byte) error {
	ack, err := w.ask(&packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Subscribe}, PacketID: 1,
		Filters: packets.Subscriptions{{Filter: filter, Qos: qos}},
	}, packets.Suback)
	if err == nil && (len(ack.ReasonCodes) != 1 || ack.ReasonCodes[0] != qos) {
		err = fmt.Errorf("answer to SUBSCRIBE %s is %#x", filter, ack.ReasonCodes)
	}
	return err
}

// acknowledge a received PUBLISH of QoS 1.
func (w *wire) acknowledge(id uint16) error {
	return w.send(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}, PacketID: id})
}

// bye disconnects in order.
func (w *wire) bye() error {
	err := w.send(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}})
	return errors.Join(err, w.conn.Close())
}

// connect is dialMQTT that must succeed. The connection ends with the test.
func (g *gateway) connect(h hello) (*wire, *packets.Packet) {
	g.t.Helper()
	w, ack, err := dialMQTT(context.Background(), g.mqtt, h)
	require.NoError(g.t, err)
	g.t.Cleanup(func() { w.conn.Close() })
	require.Zero(g.t, ack.ReasonCode)
	return w, ack
}

func publication(topic string, qos byte, id uint16, payload []byte) *packets.Packet {
	return &packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos}, TopicName: topic, PacketID: id, Payload: payload,
	}
}

// receive is the next PUBLISH, acknowledged if it must be.
func receive(t testing.TB, w *wire) *packets.Packet {
	t.Helper()
	p, err := w.read(patience)
	require.NoError(t, err)
	require.Equal(t, packets.Publish, p.FixedHeader.Type)
	if p.FixedHeader.Qos == 1 {
		require.NoError(t, w.acknowledge(p.PacketID))
	}
	return p
}
