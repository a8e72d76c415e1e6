package mqtt

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/broker"
	"gantry/protocols/mqtt/wire"
)

// announced is what a version 5 CONNACK says with the default configuration.
const announced = "21 03e8 27 00100000 22 0010"

func TestConnectAnswers(t *testing.T) {
	r := newRig(t, Config{})
	for _, c := range []struct {
		name, connect, answer string
		open                  bool
	}{
		{"3.1", "10 0f 0006 'MQIsdp' 03 02 000a 0001 'a'", "20 02 00 00", true},
		{"3.1.1", "10 0d 0004 'MQTT' 04 02 003c 0001 'b'", "20 02 00 00", true},
		{"3.1.1 empty id, clean", "10 0c 0004 'MQTT' 04 02 003c 0000", "20 02 00 00", true},
		{"3.1.1 empty id, not clean", "10 0c 0004 'MQTT' 04 00 003c 0000", "20 02 00 02", false},
		{"3.1.1 empty password, empty will", "10 16 0004 'MQTT' 04 c6 0000 0001 'c' 0001 'w' 0000 0000 0000", "20 02 00 00", true},
		{"3.1.1 password without user name", "10 10 0004 'MQTT' 04 42 003c 0001 'a' 0001 'p'", "", false},
		{"unknown level below 5", "10 0d 0004 'MQTT' 03 02 003c 0001 'a'", "20 02 00 01", false},
		{"unknown level above 5", "10 0d 0004 'MQTT' 06 02 003c 0001 'a'", "20 40 00 84 3d 1f 003a 'unsupported protocol version: protocol level is not served'", false},
		{"unknown protocol", "10 0d 0004 'MQTX' 04 02 003c 0001 'a'", "", false},
		{"3.1.1 reserved flag", "10 0d 0004 'MQTT' 04 03 003c 0001 'a'", "", false},
		{"5", "10 0e 0004 'MQTT' 05 02 003c 00 0001 'd'", "20 0e 00 00 0b" + announced, true},
		{"5 password without user name", "10 11 0004 'MQTT' 05 42 0000 00 0001 'e' 0001 'p'", "20 0e 00 00 0b" + announced, true},
		{"5 capped session expiry", "10 13 0004 'MQTT' 05 02 0000 05 11 ffffffff 0001 'f'", "20 13 00 00 10 11 00015180" + announced, true},
		{"5 authentication method", "10 12 0004 'MQTT' 05 02 0000 04 15 0001 'm' 0001 'g'", "20 44 00 8c 41 1f 003e 'bad authentication method: authentication method is not served'", false},
		{"5 Receive Maximum 0, no problem information", "10 13 0004 'MQTT' 05 02 0000 05 17 00 21 0000 0001 'h'", "20 03 00 82 00", false},
		{"5 reserved flag", "10 0e 0004 'MQTT' 05 03 0000 00 0001 'i'", "20 34 00 81 31 1f 002e 'malformed packet: reserved connect flag is set'", false},
		{"first packet is PINGREQ", "c0 00", "", false},
		{"garbage", "'GET / HTTP/1.1'", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := r.dial(0)
			p.t = t
			p.send(c.connect)
			if c.answer != "" {
				p.expect(c.answer)
			}
			if c.open {
				p.expectSilence()
				return
			}
			p.expectClosed()
		})
	}
}

func TestConnackAnnouncesWhatDiffers(t *testing.T) {
	r := newRig(t, Config{MaxPacketSize: 2048, ReceiveMaximum: 65535, TopicAliasMax: 1, MaxKeepAlive: 30 * time.Second})
	p := r.dial(wire.V5)
	p.write(connectPacket(t, wire.V5, "", 2))
	h, body := p.packet()
	require.Equal(t, wire.CONNACK, h.Type)
	// session present, code, length, Maximum Packet Size, Assigned Client Identifier, …
	require.Equal(t, raw(t, "00 00"), body[:2])
	require.Equal(t, raw(t, "27 00000800 12"), body[3:9])
	n := 11 + int(body[10])
	require.Regexp(t, "^auto-[A-Z0-9]+$", string(body[11:n]))
	require.Equal(t, raw(t, "22 0001 13 001e"), body[n:], "topic aliases, keep alive")
	infos := r.broker.Sessions()
	require.Len(t, infos, 1)
	require.Equal(t, string(body[11:n]), infos[0].ClientID)
}

func TestServerKeepAliveOnlyWhenLonger(t *testing.T) {
	r := newRig(t, Config{MaxKeepAlive: 90 * time.Second})
	p := r.dial(wire.V5)
	p.send("10 0e 0004 'MQTT' 05 02 003c 00 0001 'a'")
	p.expect("20 0e 00 00 0b" + announced)
}

func TestFaultsAfterConnect(t *testing.T) {
	r := newRig(t, Config{})
	for _, c := range []struct {
		name, packet string
		code         byte
	}{
		{"second CONNECT", "10 0e 0004 'MQTT' 05 02 003c 00 0001 'a'", 0x82},
		{"CONNACK", "20 03 00 00 00", 0x82},
		{"SUBACK", "90 04 0001 00 00", 0x82},
		{"PINGRESP", "d0 00", 0x82},
		{"AUTH outside an exchange", "f0 00", 0x82},
		{"malformed", "c1 00", 0x81},
		{"packet too large", "30 818040", 0x95},
		{"alias above the maximum", "30 07 0001 't' 03 23 0011", 0x94},
		{"alias 0", "30 07 0001 't' 03 23 0000", 0x94},
		{"alias not defined", "30 06 0000 03 23 0002", 0x82},
		{"topic with wildcard", "30 06 0003 't/#' 00", 0x81},
		{"subscription identifier", "30 06 0001 't' 02 0b 01", 0x82},
		{"session expiry in DISCONNECT after none", "e0 07 00 05 11 00000001", 0x82},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := r.connect(wire.V5, "v5", 2)
			p.t = t
			p.send(c.packet)
			p.expectDisconnect(c.code)
			old := r.connect(wire.V311, "v3", 2)
			old.t = t
			if onlyFaultIn5(c.name) {
				return
			}
			old.send(c.packet)
			old.expectClosed()
		})
	}
}

// onlyFaultIn5: in 3.1.1 these bytes are payload.
func onlyFaultIn5(name string) bool {
	switch name {
	case "alias above the maximum", "alias 0", "subscription identifier":
		return true
	}
	return false
}

// Closing a socket with unread bytes in it makes the kernel send RST, and that
// may take the DISCONNECT back on its way.
func TestDisconnectIsFollowedByAnOrderlyEnd(t *testing.T) {
	r := newRig(t, Config{})
	p := r.connect(wire.V5, "a", 2)
	p.write(append(raw(t, "c1 00"), make([]byte, 50_000)...))
	h, _ := p.packet()
	require.Equal(t, wire.DISCONNECT, h.Type)
	_, err := p.r.ReadByte()
	require.Equal(t, io.EOF, err)
}

func TestReasonStringOnlyWhereWanted(t *testing.T) {
	r := newRig(t, Config{})
	p := r.connect(wire.V5, "a", 2)
	p.send("c1 00")
	h, body := p.packet()
	require.Equal(t, wire.DISCONNECT, h.Type)
	require.Contains(t, string(body), "fixed header flags")
	p = r.connect(wire.V5, "b", 2, "17 00")
	p.send("c1 00")
	p.expect("e0 01 81")
	p = r.connect(wire.V5, "c", 2, "27 00000010") // no room
	p.send("c1 00")
	p.expect("e0 01 81")
}

func TestConnectDeadline(t *testing.T) {
	r := newRig(t, Config{ConnectTimeout: 50 * time.Millisecond})
	silent := r.dial(0)
	half := r.dial(0)
	half.send("10 0d 0004 'MQ")
	silent.expectClosed()
	half.expectClosed()
	eventually(t, func() bool { return r.srv.Connections() == 0 }, "connections end")
}

func TestHalfAConnectPacketTooLargeIsRefused(t *testing.T) {
	r := newRig(t, Config{MaxPacketSize: 2048})
	p := r.dial(0)
	p.send("10 ff7f 0004 'MQTT' 05 02")
	h, body := p.packet()
	require.Equal(t, wire.CONNACK, h.Type)
	require.Equal(t, byte(0x95), body[1])
	p.expectClosed()
	p = r.dial(0)
	p.send("10 ff7f 0004 'MQTT' 04 02")
	p.expectClosed()
}

func TestKeepAlive(t *testing.T) {
	r := newRig(t, Config{})
	p := r.dial(wire.V5)
	p.send("10 0e 0004 'MQTT' 05 02 0001 00 0001 'a'")
	p.expect("20 0e 00 00 0b" + announced)
	time.Sleep(time.Second) // a sign of life moves the end
	start := time.Now()
	p.expectSilence()
	p.expectDisconnect(0x8d)
	require.GreaterOrEqual(t, time.Since(start), 1500*time.Millisecond)
}

func TestKeepAliveDoesNotOverflow(t *testing.T) {
	c := &conn{srv: &Server{cfg: Config{}}}
	c.setKeepAlive(&wire.Connect{Version: wire.V311, KeepAlive: 65535}, &wire.Connack{})
	require.Equal(t, 65535*time.Second*3/2, c.keepAlive)
}

// refuser is an authenticator that answers with one reason.
type refuser struct{ err error }

func (r refuser) Authenticate(context.Context, *broker.ConnectRequest) error { return r.err }

func TestRefusalByTheCore(t *testing.T) {
	why := errors.New("secret detail")
	r := newRigOn(t, nil, Config{}, broker.Config{Authenticate: refuser{&broker.Error{Reason: broker.BadCredentials, Err: why}}})
	p := r.dial(0)
	p.write(connectPacket(t, wire.V311, "a", 2))
	p.expect("20 02 00 04")
	p.expectClosed()
	p = r.dial(0)
	p.write(connectPacket(t, wire.V5, "a", 2))
	p.expect("20 03 00 86 00") // why is not the client's business
	p.expectClosed()
}

func TestSessionExpiryInDisconnect(t *testing.T) {
	r := newRig(t, Config{})
	p := r.connect(wire.V5, "a", 2, "11 0000000a")
	p.send("e0 07 00 05 11 00000000")
	p.expectClosed()
	eventually(t, func() bool { return len(r.broker.Sessions()) == 0 }, "session ended")
}

func TestWill(t *testing.T) {
	for _, c := range []struct {
		name, last string
		fires      bool
	}{
		{"lost connection", "", true},
		{"DISCONNECT", "e0 00", false},
		{"DISCONNECT with will", "e0 01 04", true},
		{"protocol error", "d0 00", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, Config{})
			sub := r.connect(wire.V5, "sub", 2)
			sub.send("82 07 0001 00 0001 'w' 01")
			sub.expect("90 04 0001 00 01")
			p := r.connect(wire.V5, "p", 0x0e, "", "10 02 0000000a 03 0001 'c' 26 0001 'k' 0001 'v'", "0001 'w' 0003 'bye'")
			if c.last != "" {
				p.send(c.last)
			} else {
				require.NoError(t, p.nc.Close())
			}
			if c.fires {
				sub.expect("32 19 0001 'w' 0001 10 03 0001 'c' 26 0001 'k' 0001 'v' 02 0000000a 'bye'")
			}
			eventually(t, func() bool { return r.srv.Connections() == 1 }, "client gone")
			sub.expectSilence()
		})
	}
}
