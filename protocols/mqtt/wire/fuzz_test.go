package wire

import (
	"bytes"
	"encoding/hex"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/stretchr/testify/require"

	"gantry/broker"
)

// seed gives a fuzz target the packets of some types: those of the tables here
// and those that the conformance suite sends.
func seed(f *testing.F, types ...Type) {
	add := func(b []byte, v Version) {
		if slices.Contains(types, Type(b[0]>>4)) {
			f.Add(b, byte(v))
		}
	}
	for _, c := range append(goodPackets, badPackets...) {
		add(raw(f, c.packet), max(c.v, V311))
	}
	for _, s := range suitePackets(f) {
		add(s.packet, s.v)
	}
}

type suitePacket struct {
	v      Version
	packet []byte
}

// suitePackets reads what TestSeeds of the conformance suite has written.
func suitePackets(t testing.TB) (all []suitePacket) {
	t.Helper()
	text, err := os.ReadFile("testdata/suite.txt")
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		version, packet, ok := strings.Cut(strings.TrimSpace(line), " ")
		require.True(t, ok && len(version) == 1, "line %q", line)
		b, err := hex.DecodeString(packet)
		require.NoError(t, err)
		all = append(all, suitePacket{Version(version[0] - '0'), b})
	}
	return all
}

// What is left of a packet that is cut asks for more or is refused; it is never
// taken for a whole one, and never panics.
func TestEveryTruncatedPrefixOfTheSuite(t *testing.T) {
	for _, s := range suitePackets(t) {
		for n := range s.packet {
			_, err := parseAny(s.packet[:n:n], s.v)
			require.Error(t, err, "% x cut to %d", s.packet, n)
		}
		h, ok, err := ParseHeader(s.packet, s.v)
		if err != nil || !ok {
			continue
		}
		for n := range h.Length {
			if _, err := parseBody(h, s.packet[h.Size:h.Size+n:h.Size+n], s.v); err != nil {
				require.NotEqual(t, broker.Unspecified, broker.ReasonOf(err), "% x cut to %d", s.packet, n)
			}
		}
	}
}

// split gives a fuzz target the packet that its input begins with.
func split(b []byte, version byte) (h Header, body []byte, v Version, ok bool) {
	v = V311 + Version(version%2)
	h, ok, err := ParseHeader(b, v)
	if err != nil || !ok || len(b) < h.Total() {
		return h, nil, v, false
	}
	return h, bytes.Clone(b[h.Size:h.Total()]), v, true
}

// second opens the same packet with another code base.
func second(t *testing.T, h Header, v Version, first byte) *packets.Packet {
	t.Helper()
	pk := &packets.Packet{ProtocolVersion: byte(v)}
	require.NoError(t, pk.FixedHeader.Decode(first))
	pk.FixedHeader.Remaining = h.Length
	return pk
}

// What we accept another code base must accept with the same values; it is
// laxer than we are, so nothing follows from what we refuse.
func FuzzPublish(f *testing.F) {
	seed(f, PUBLISH)
	f.Fuzz(func(t *testing.T, b []byte, version byte) {
		h, body, v, ok := split(b, version)
		if !ok || h.Type != PUBLISH {
			return
		}
		var p Publish
		if err := p.Parse(h.Flags, body, v); err != nil {
			require.NotEqual(t, broker.Unspecified, broker.ReasonOf(err))
			return
		}
		pk := second(t, h, v, b[0])
		require.NoError(t, pk.PublishDecode(body))
		require.Equal(t, packets.CodeSuccess.Code, pk.PublishValidate(65535).Code)
		require.Equal(t, pk.TopicName, string(p.Topic))
		require.Equal(t, pk.Payload, p.Payload)
		require.Equal(t, pk.PacketID, p.PacketID)
		require.Equal(t, pk.FixedHeader.Qos, byte(p.QoS))
		require.Equal(t, pk.FixedHeader.Retain, p.Retain)
		require.Equal(t, pk.FixedHeader.Dup, p.Dup)
		require.Equal(t, pk.Properties.TopicAlias, p.Alias)
		require.Equal(t, pk.Properties.MessageExpiryInterval, p.Expiry)
		if m := p.Properties; m != nil {
			require.Equal(t, pk.Properties.ContentType, m.ContentType)
			require.Equal(t, pk.Properties.ResponseTopic, m.ResponseTopic)
			require.True(t, bytes.Equal(pk.Properties.CorrelationData, m.CorrelationData))
			require.Equal(t, pk.Properties.PayloadFormatFlag, m.PayloadFormat != broker.FormatAbsent)
			require.Len(t, m.User, len(pk.Properties.User))
			for i, u := range pk.Properties.User {
				require.Equal(t, broker.UserProperty{Key: u.Key, Value: u.Val}, m.User[i])
			}
		}
		reparse(t, &p, v)
	})
}

// reparse sends what was parsed on and expects the same message at the other end.
func reparse(t *testing.T, p *Publish, v Version) {
	t.Helper()
	if len(p.Topic) == 0 {
		return
	}
	out := Outgoing{
		Message: &broker.Message{Topic: string(p.Topic), Payload: p.Payload, Properties: p.Properties},
		Version: v, QoS: p.QoS, Retain: p.Retain, Dup: p.Dup, PacketID: p.PacketID, Alias: p.Alias,
	}
	if p.HasExpiry && p.Expiry > 0 {
		out.Message.Expires = int64(p.Expiry) * 1000
	}
	size := out.Measure()
	require.NotEqual(t, TooLong, size)
	b := out.Append(nil)
	require.Len(t, b, size)
	h, ok, err := ParseHeader(b, v)
	require.NoError(t, err)
	require.True(t, ok)
	var again Publish
	require.NoError(t, again.Parse(h.Flags, b[h.Size:], v))
	require.Equal(t, p.Topic, again.Topic)
	require.Equal(t, p.Payload, again.Payload)
	require.Equal(t, p.Expiry, again.Expiry)
	require.Equal(t, p.Properties, again.Properties)
}

func FuzzAck(f *testing.F) {
	seed(f, PUBACK, PUBREC, PUBREL, PUBCOMP)
	f.Fuzz(func(t *testing.T, b []byte, version byte) {
		h, body, v, ok := split(b, version)
		if !ok || h.Type < PUBACK || h.Type > PUBCOMP {
			return
		}
		a, err := ParseAck(h.Type, body, v)
		if err != nil {
			require.NotEqual(t, broker.Unspecified, broker.ReasonOf(err))
			return
		}
		pk := second(t, h, v, b[0])
		require.NoError(t, pk.PubackDecode(body))
		require.Equal(t, pk.PacketID, a.PacketID)
		require.Equal(t, pk.ReasonCode, a.Code)
		again, ok, err := ParseHeader(AppendAck(nil, h.Type, a.PacketID, a.Code, v), v)
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, h.Type, again.Type)
	})
}

func FuzzConnect(f *testing.F) {
	seed(f, CONNECT)
	f.Fuzz(func(t *testing.T, b []byte, _ byte) {
		h, ok, err := ParseHeader(b, 0)
		if err != nil || !ok || len(b) < h.Total() || h.Type != CONNECT {
			return
		}
		body := bytes.Clone(b[h.Size:h.Total()])
		c, err := ParseConnect(h, body)
		if err != nil {
			require.NotEqual(t, broker.Unspecified, broker.ReasonOf(err))
			return
		}
		pk := second(t, h, c.Version, b[0])
		require.NoError(t, pk.ConnectDecode(body))
		require.Equal(t, byte(c.Version), pk.ProtocolVersion)
		require.Equal(t, pk.Connect.Keepalive, c.KeepAlive)
		require.Equal(t, pk.Connect.ClientIdentifier, c.ClientID)
		require.Equal(t, pk.Connect.Clean, c.CleanStart)
		require.Equal(t, string(pk.Connect.Username), c.Username)
		require.Equal(t, string(pk.Connect.Password), string(c.Password))
		require.Equal(t, pk.Connect.WillFlag, c.Will != nil)
		require.Equal(t, pk.Properties.SessionExpiryInterval, c.SessionExpiry)
		if c.Will != nil {
			require.Equal(t, pk.Connect.WillTopic, c.Will.Topic)
			require.Equal(t, string(pk.Connect.WillPayload), string(c.Will.Payload))
			require.Equal(t, pk.Connect.WillQos, byte(c.Will.QoS))
			require.Equal(t, pk.Connect.WillProperties.WillDelayInterval, c.Will.Delay)
		}
	})
}

func FuzzSubscribe(f *testing.F) {
	seed(f, SUBSCRIBE)
	f.Fuzz(func(t *testing.T, b []byte, version byte) {
		h, body, v, ok := split(b, version)
		if !ok || h.Type != SUBSCRIBE {
			return
		}
		s, err := ParseSubscribe(body, v)
		if err != nil {
			require.NotEqual(t, broker.Unspecified, broker.ReasonOf(err))
			return
		}
		pk := second(t, h, v, b[0])
		require.NoError(t, pk.SubscribeDecode(body))
		require.Equal(t, pk.PacketID, s.PacketID)
		require.Len(t, s.Filters, len(pk.Filters))
		for i, want := range pk.Filters {
			got := s.Filters[i]
			require.Equal(t, want.Filter, got.Filter)
			require.Equal(t, want.Qos, byte(got.QoS))
			require.Equal(t, want.Identifier, int(got.ID))
			require.Equal(t, want.NoLocal, got.NoLocal)
			require.Equal(t, want.RetainAsPublished, got.RetainAsPublished)
			require.Equal(t, want.RetainHandling, got.RetainHandling)
		}
	})
}

// The rest has no second opinion worth the name; it must not panic and must
// name a reason.
func FuzzOther(f *testing.F) {
	seed(f, UNSUBSCRIBE, PINGREQ, DISCONNECT, AUTH)
	f.Fuzz(func(t *testing.T, b []byte, version byte) {
		if _, err := parseAny(b, V311+Version(version%2)); err != nil {
			require.NotEqual(t, broker.Unspecified, broker.ReasonOf(err))
		}
	})
}
