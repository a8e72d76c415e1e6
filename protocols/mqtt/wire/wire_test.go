package wire

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"gantry/broker"
)

// The case tables state Remaining Length by hand; a wrong one would test
// something else than its name says.
func TestCasesHaveTheirLength(t *testing.T) {
	for _, c := range append(goodPackets, badPackets...) {
		b := raw(t, c.packet)
		h, ok, err := ParseHeader(b, 0)
		if err != nil || !ok {
			continue
		}
		require.Len(t, b, h.Total(), c.name)
	}
}

// Every packet that is cut anywhere, and whose header says so, must be refused
// or be a shorter valid packet, and must never panic.
func TestEveryTruncatedPrefix(t *testing.T) {
	for _, c := range append(goodPackets, badPackets...) {
		b := raw(t, c.packet)
		for n := range b {
			_, ok, err := ParseHeader(b[:n], c.v)
			require.False(t, ok && err != nil)
		}
		h, ok, err := ParseHeader(b, c.v)
		if !ok || err != nil {
			continue
		}
		body := b[h.Size:]
		for n := range body {
			cut := bytes.Clone(body[:n]) // exact capacity: an overrun panics
			got, err := parseBody(h, cut[:n:n], c.v)
			if _, isAck := c.want.(Ack); c.want != nil && !isAck && err == nil { // an ack drops its properties
				require.NotEqual(t, c.want, got, "%s cut to %d bytes", c.name, n)
			}
			if err != nil {
				require.NotEqual(t, broker.Unspecified, broker.ReasonOf(err))
			}
		}
	}
}

func TestHeaderNeedsAllItsBytes(t *testing.T) {
	full := []byte{0x30, 0xff, 0xff, 0xff, 0x7f}
	for n := range full {
		_, ok, err := ParseHeader(full[:n], V5)
		require.NoError(t, err)
		require.False(t, ok)
	}
	h, ok, err := ParseHeader(full, V5)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, Header{Type: PUBLISH, Length: MaxRemaining, Size: 5}, h)
}

func TestVarintBoundaries(t *testing.T) {
	for _, n := range []uint32{0, 127, 128, 16383, 16384, 2097151, 2097152, MaxRemaining} {
		b := appendVarint(nil, n)
		require.Len(t, b, varintSize(n))
		c := cursor{b: b}
		require.Equal(t, n, c.varint())
		require.NoError(t, c.end())
	}
}

func TestAppendPublish(t *testing.T) {
	m := &broker.Message{Topic: "a/b", Payload: []byte("hi")}
	rich := &broker.Message{Topic: "t", Payload: []byte("x"), Expires: 10_000, Properties: &broker.Properties{
		PayloadFormat: broker.FormatUTF8, ContentType: "c", ResponseTopic: "r", CorrelationData: []byte{9},
		User: []broker.UserProperty{{Key: "b", Value: "1"}, {Key: "a", Value: "2"}},
	}}
	for _, c := range []struct {
		name string
		out  Outgoing
		want string
	}{
		{"QoS 0", Outgoing{Message: m, Version: V311, Retain: true}, "31 07 0003 'a/b' 'hi'"},
		{"QoS 0 never has DUP", Outgoing{Message: m, Version: V311, Dup: true}, "30 07 0003 'a/b' 'hi'"},
		{"QoS 1 again", Outgoing{Message: m, Version: V311, QoS: 1, Dup: true, PacketID: 258}, "3a 09 0003 'a/b' 0102 'hi'"},
		{"version 5 plain", Outgoing{Message: m, Version: V5, QoS: 2, PacketID: 1}, "34 0a 0003 'a/b' 0001 00 'hi'"},
		{"properties are not for 3.1.1", Outgoing{Message: rich, Version: V311}, "30 04 0001 't' 'x'"},
		{"all properties, users in order", Outgoing{Message: rich, Version: V5, Now: 7_001, Alias: 2, SubscriptionIDs: []uint32{1, 200}}, "30 2e 0001 't' 29 " +
			"01 01 03 0001 'c' 08 0001 'r' 09 0001 09 26 0001 'b' 0001 '1' 26 0001 'a' 0001 '2' 02 00000003 23 0002 0b 01 0b c801 'x'"},
		{"texts that are there and empty", Outgoing{Message: &broker.Message{Topic: "t", Properties: &broker.Properties{
			EmptyContentType: true, EmptyResponseTopic: true,
		}}, Version: V5}, "30 0a 0001 't' 06 03 0000 08 0000"},
		{"known alias", Outgoing{Message: m, Version: V5, Alias: 1, OmitTopic: true}, "30 08 0000 03 23 0001 'hi'"},
		{"late message has expiry 0", Outgoing{Message: &broker.Message{Topic: "t", Expires: 5}, Version: V5, Now: 99}, "30 09 0001 't' 05 02 00000000"},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := raw(t, c.want)
			require.Equal(t, len(want), c.out.Measure())
			require.Equal(t, want, c.out.Append(nil))
			require.Equal(t, want[:len(want)-len(c.out.Message.Payload)], c.out.AppendHead(nil))
		})
	}
}

func TestMeasureRefusesWhatCannotBeSent(t *testing.T) {
	long := strings.Repeat("x", 65536)
	for _, m := range []*broker.Message{
		{Topic: long},
		{Topic: "t", Properties: &broker.Properties{ContentType: long}},
		{Topic: "t", Properties: &broker.Properties{ResponseTopic: long}},
		{Topic: "t", Properties: &broker.Properties{CorrelationData: []byte(long)}},
		{Topic: "t", Properties: &broker.Properties{User: []broker.UserProperty{{Key: long}}}},
		{Topic: "t", Properties: &broker.Properties{User: []broker.UserProperty{{Value: long}}}},
		{Topic: "t", Payload: make([]byte, MaxRemaining)},
	} {
		out := Outgoing{Message: m, Version: V5}
		require.Equal(t, TooLong, out.Measure())
	}
}

func TestRemainingSecondsSubtractsWholeSecondsOnly(t *testing.T) {
	for _, c := range []struct {
		time, now, expires int64
		want               uint32
	}{
		{0, 0, 10_000, 10},
		{0, 999, 10_000, 10},
		{0, 1000, 10_000, 9},
		{0, 10_005, 10_000, 0},
		{5000, 4000, 15_000, 10}, // came after Now was taken
		{0, 0, math.MaxInt64 - 999, math.MaxUint32},
	} {
		out := Outgoing{Message: &broker.Message{Time: c.time, Expires: c.expires}, Now: c.now}
		require.Equal(t, c.want, out.remainingSeconds(), "%+v", c)
	}
}

func TestAppendServerPackets(t *testing.T) {
	for _, c := range []struct {
		name string
		got  []byte
		want string
	}{
		{"CONNACK 3.1.1", AppendConnack(nil, &Connack{SessionPresent: true}, V311), "20 02 01 00"},
		{"CONNACK 3.1.1 refused", AppendConnack(nil, &Connack{Code: 5, ReasonString: "no"}, V311), "20 02 00 05"},
		{"CONNACK 5 plain", AppendConnack(nil, &Connack{}, V5), "20 03 00 00 00"},
		{"CONNACK 5 full", AppendConnack(nil, &Connack{
			SessionPresent: true, ReceiveMaximum: 10, MaximumPacketSize: 1 << 20, TopicAliasMaximum: 16, AssignedClientID: "id",
			HasSessionExpiry: true, SessionExpiry: 5, HasKeepAlive: true, KeepAlive: 30, ReasonString: "r",
		}, V5), "20 1f 01 00 1c 11 00000005 21 000a 27 00100000 12 0002 'id' 22 0010 1f 0001 'r' 13 001e"},
		{"PUBACK", AppendAck(nil, PUBACK, 7, 0x10, V311), "40 02 0007"},
		{"PUBACK 5 success", AppendAck(nil, PUBACK, 7, 0, V5), "40 02 0007"},
		{"PUBREC 5 code", AppendAck(nil, PUBREC, 7, 0x97, V5), "50 03 0007 97"},
		{"PUBREL", AppendAck(nil, PUBREL, 7, 0, V311), "62 02 0007"},
		{"PUBREL 5 unknown", AppendAck(nil, PUBREL, 7, 0x92, V5), "62 03 0007 92"},
		{"PUBCOMP", AppendAck(nil, PUBCOMP, 7, 0, V5), "70 02 0007"},
		{"SUBACK", AppendSuback(nil, 7, []byte{1, 0x80}, V311), "90 04 0007 01 80"},
		{"SUBACK 5", AppendSuback(nil, 7, []byte{1, 0x8f}, V5), "90 05 0007 00 01 8f"},
		{"UNSUBACK has no codes before 5", AppendUnsuback(nil, 7, []byte{0x11}, V311), "b0 02 0007"},
		{"UNSUBACK 5", AppendUnsuback(nil, 7, []byte{0, 0x11}, V5), "b0 05 0007 00 00 11"},
		{"PINGRESP", AppendPingresp(nil), "d0 00"},
		{"CONNACK 5 after an exchange", AppendConnack(nil, &Connack{HasAuthMethod: true, AuthMethod: "m", AuthData: []byte("d")}, V5), "20 0b 00 00 08 15 0001 'm' 16 0001 'd'"},
		{"CONNACK 5 after one without last word", AppendConnack(nil, &Connack{HasAuthMethod: true, AuthMethod: ""}, V5), "20 06 00 00 03 15 0000"},
		{"AUTH", AppendAuth(nil, 0x18, "m", []byte("d")), "f0 0a 18 08 15 0001 'm' 16 0001 'd'"},
		{"AUTH with no data and with none", append(AppendAuth(nil, 0x18, "m", []byte{}), AppendAuth(nil, 0, "m", nil)...), "f0 09 18 07 15 0001 'm' 16 0000 f0 06 00 04 15 0001 'm'"},
		{"DISCONNECT", AppendDisconnect(nil, 0x8e, ""), "e0 01 8e"},
		{"DISCONNECT with text", AppendDisconnect(nil, 0x81, "why"), "e0 08 81 06 1f 0003 'why'"},
	} {
		require.Equal(t, raw(t, c.want), c.got, c.name)
	}
}

// A text that is refused by its error names the version to answer in.
func TestConnectErrorKnowsTheVersion(t *testing.T) {
	for packet, want := range map[string]Version{
		"10 0d 0004 'MQTT' 06 02 003c 0001 'a'":               V5,
		"10 0d 0004 'MQTT' 02 02 003c 0001 'a'":               V311,
		"10 11 0004 'MQTT' 05 02 003c 03 21 0000 0001 'a'":    V5,
		"10 0c 0004 'MQTT' 04 00 003c 0000":                   V311,
		"10 0d 0004 'XXXX' 04 02 003c 0001 'a'":               0,
		"10 0f 0004 'MQTT' 05 02 003c 00 0003 eda080":         V5,
		"10 0e 0006 'MQIsdp' 03 02 003c 0000":                 V31,
		"10 10 0004 'MQTT' 05 02 003c 02 17 02 0001 'a'":      V5,
		"10 12 0004 'MQTT' 05 02 003c 04 17 01 17 01 0001 61": V5,
	} {
		b := raw(t, packet)
		h, ok, err := ParseHeader(b, 0)
		require.NoError(t, err)
		require.True(t, ok)
		c, err := ParseConnect(h, b[h.Size:])
		require.Error(t, err)
		require.Equal(t, want, c.Version, packet)
	}
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	in := raw(t, "32 0c 0003 'a/b' 0001 00 'hi!!'")
	var p Publish
	require.Zero(t, testing.AllocsPerRun(100, func() {
		h, _, _ := ParseHeader(in, V5)
		if err := p.Parse(h.Flags, in[h.Size:], V5); err != nil {
			t.Fatal(err)
		}
		if _, err := ParseAck(PUBACK, in[7:9], V311); err != nil { // the same packet identifier
			t.Fatal(err)
		}
	}))
	buf := make([]byte, 0, 256)
	out := Outgoing{Message: &broker.Message{Topic: "a/b", Payload: []byte("x")}, Version: V5, QoS: 1, PacketID: 1}
	require.Zero(t, testing.AllocsPerRun(100, func() {
		out.Measure()
		buf = out.Append(buf[:0])
		buf = AppendAck(buf, PUBACK, 1, 0, V5)
	}))
}

func BenchmarkParsePublish(b *testing.B) {
	for name, packet := range map[string]string{"qos0-v311": "30 87 01 0007 'a/b/c/d'", "qos1-v5": "32 8a 01 0007 'a/b/c/d' 0001 00"} {
		b.Run(name, func(b *testing.B) {
			in := append(raw(b, strings.ReplaceAll(packet, " 01 0007", "01 0007")), make([]byte, 128)...)
			h, _, _ := ParseHeader(in, 0)
			v := V311
			if strings.HasSuffix(name, "v5") {
				v = V5
			}
			in = in[:h.Total()]
			var p Publish
			b.ReportAllocs()
			for b.Loop() {
				h, _, _ := ParseHeader(in, v)
				if err := p.Parse(h.Flags, in[h.Size:], v); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppendPublish(b *testing.B) {
	m := &broker.Message{Topic: "a/b/c/d", Payload: make([]byte, 128)}
	for name, out := range map[string]Outgoing{
		"qos0-v311": {Message: m, Version: V311},
		"qos1-v5":   {Message: m, Version: V5, QoS: 1, PacketID: 1},
	} {
		b.Run(name, func(b *testing.B) {
			buf := make([]byte, 0, 4096)
			b.ReportAllocs()
			for b.Loop() {
				out.Measure()
				buf = out.Append(buf[:0])
			}
		})
	}
}
