package mqtt

import (
	"testing"

	"github.com/stretchr/testify/require"

	"gantry/broker"
	"gantry/protocols/mqtt/wire"
)

// named makes the names of a listener.
func named(t testing.TB, mountpoint, clientID, username string) broker.Naming {
	t.Helper()
	m, err := broker.ParseMountpoint(mountpoint)
	require.NoError(t, err)
	id, err := broker.ParseName(clientID)
	require.NoError(t, err)
	user, err := broker.ParseName(username)
	require.NoError(t, err)
	return broker.Naming{Mountpoint: m, ClientID: id, Username: user}
}

func TestMountpointOnTheWire(t *testing.T) {
	g := &gate{}
	r := newRig(t, Config{Naming: named(t, "m/${clientid}/", "", "")}, g)
	p := r.connect(wire.V5, "c", 2, "22 0005") // topic aliases
	p.send("82 0b 0001 00 0005 'abc/+' 00")
	p.expect("90 04 0001 00 00")
	p.send("30 0d 0009 'abc/defgh' 00 'x'")
	p.expect("30 10 0009 'abc/defgh' 03 23 0001 'x'")
	p.send("30 0d 0009 'abc/defgh' 00 'y'")
	p.expect("30 07 0000 03 23 0001 'y'") // known by its alias
	p.send("82 0a 0003 00 0004 'abcd' 00", "30 08 0004 'abcd' 00 'x'")
	p.expect("90 04 0003 00 00", "30 08 0004 'abcd' 00 'x'") // too short for an alias, as the client knows it
	p.send("a2 0a 0002 00 0005 'abc/+'")
	p.expect("b0 04 0002 00 00")

	old := r.connect(wire.V311, "old", 2)
	old.send("82 06 0001 0001 '#' 00")
	old.expect("90 03 0001 00")
	p.send("30 05 0001 'a' 00 '1'") // another mount
	old.send("30 04 0001 'a' '2'")
	old.expect("30 04 0001 'a' '2'")
	old.expectSilence()

	watch := r.connect(wire.V5, "w", 0x06, "", "00 0001 't' 0004 'gone'") // with a will
	require.NoError(t, watch.nc.Close())
	eventually(t, func() bool { return r.broker.Stats().Wills == 1 }, "will")
	g.mu.Lock()
	defer g.mu.Unlock()
	require.Equal(t, "m/c/abc/defgh", g.all[0].Topic)
	require.Equal(t, "m/w/t", g.all[len(g.all)-1].Topic)
}

func TestMountpointRefusesNamesThatLeaveIt(t *testing.T) {
	r := newRig(t, Config{Naming: named(t, "${clientid}/", "", "")})
	for _, id := range []string{"a/b", "#", "+", "$SYS"} {
		p := r.dial(wire.V5)
		p.write(connectPacket(t, wire.V5, id, 2))
		h, body := p.packet()
		require.Equal(t, wire.CONNACK, h.Type)
		require.Equal(t, byte(0x85), body[1], id)
		p = r.dial(wire.V311)
		p.write(connectPacket(t, wire.V311, id, 2))
		p.expect("20 02 00 02")
		p.expectClosed()
	}
	p := r.connect(wire.V5, "c", 2)
	p.send("82 07 0001 00 0001 't' 01")
	p.expect("90 04 0001 00 01")
}

func TestClientIDOfTheListener(t *testing.T) {
	r := newRig(t, Config{Name: "lst", Naming: named(t, "", "${username}", "${clientid}-${listener}")})
	p := r.dial(wire.V5)
	p.write(connectPacket(t, wire.V5, "", 0x82, "", "0003 'dev'"))
	h, body := p.packet()
	require.Equal(t, wire.CONNACK, h.Type)
	require.Zero(t, body[1])
	require.Contains(t, string(body), "\x12\x00\x03dev", "Assigned Client Identifier")
	info, ok := r.broker.Session("dev")
	require.True(t, ok)
	require.Equal(t, "-lst", info.Username)

	p = r.dial(wire.V5)
	p.write(connectPacket(t, wire.V5, "own", 0x82, "", "0003 'dev'"))
	_, body = p.packet()
	require.Zero(t, body[1])
	require.NotContains(t, string(body), "dev", "the client had an identifier, the property would be an error")
	info, _ = r.broker.Session("dev")
	require.Equal(t, "own-lst", info.Username)

	p = r.dial(wire.V5)
	p.write(connectPacket(t, wire.V5, "own", 2))
	_, body = p.packet()
	require.Equal(t, byte(0x85), body[1], "no user name")
	p = r.dial(wire.V311)
	p.write(connectPacket(t, wire.V311, "own", 2))
	p.expect("20 02 00 02")
	p.expectClosed()
}

func TestUsernameOfTheListener(t *testing.T) {
	r := newRig(t, Config{Naming: named(t, "", "", "${clientid}")})
	r.connect(wire.V311, "dev", 2)
	info, _ := r.broker.Session("dev")
	require.Equal(t, "dev", info.Username)
	p := r.dial(wire.V311)
	p.write(connectPacket(t, wire.V311, "", 2))
	p.expect("20 02 00 04")
	p.expectClosed()
}

func TestAssignedIdentifiersAreMounted(t *testing.T) {
	r := newRig(t, Config{Naming: named(t, "m/${clientid}/", "", "")})
	p := r.dial(wire.V5)
	p.write(connectPacket(t, wire.V5, "", 2))
	_, body := p.packet()
	require.Zero(t, body[1])
	require.Contains(t, string(body), "auto-")
	p.send("82 07 0001 00 0001 't' 00", "30 05 0001 't' 00 'x'")
	p.expect("90 04 0001 00 00", "30 05 0001 't' 00 'x'")
}

// What a client before version 5 may not publish is acknowledged and dropped,
// or ends its connection.
func TestDeniedPublishBeforeVersion5(t *testing.T) {
	const sys = "0006 '$SYS/a'"
	r := newRig(t, Config{})
	p := r.connect(wire.V311, "p", 2)
	p.send("30 09 "+sys+" 'x'", "32 0b "+sys+" 0001 'x'", "34 0b "+sys+" 0002 'x'")
	p.expect("40 02 0001", "50 02 0002")
	p.expectSilence()

	r = newRig(t, Config{DisconnectDenied: true})
	for _, packet := range []string{"30 09 " + sys + " 'x'", "32 0b " + sys + " 0001 'x'", "34 0b " + sys + " 0002 'x'"} {
		p = r.connect(wire.V311, "p", 2)
		p.send("30 04 0001 't' 'x'", "32 06 0001 't' 0001 'x'")
		p.expect("40 02 0001")
		p.send(packet)
		p.expectClosed()
	}
	p = r.connect(wire.V5, "p", 2)
	p.send("30 0a "+sys+" 00 'x'", "32 0c "+sys+" 0001 00 'x'")
	p.expect("40 03 0001 87")
	p.expectSilence()
}
