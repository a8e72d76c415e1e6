package wire

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"gantry/broker"
)

// raw turns readable hex into bytes: blanks are ignored and 'text' stands for
// itself.
func raw(t testing.TB, s string) []byte {
	t.Helper()
	var out []byte
	for i, part := range strings.Split(s, "'") {
		if i%2 == 1 {
			out = append(out, part...)
			continue
		}
		b, err := hex.DecodeString(strings.Join(strings.Fields(part), ""))
		require.NoError(t, err, "bad hex %q", part)
		out = append(out, b...)
	}
	return out
}

// parseAny runs the parser that a packet of a client goes to and returns what
// it made of it.
func parseAny(b []byte, v Version) (any, error) {
	h, ok, err := ParseHeader(b, v)
	if err != nil {
		return nil, err
	}
	if !ok || len(b) < h.Total() {
		return nil, errShort
	}
	return parseBody(h, b[h.Size:h.Total()], v)
}

func parseBody(h Header, body []byte, v Version) (any, error) {
	switch h.Type {
	case CONNECT:
		return ParseConnect(h, body)
	case PUBLISH:
		var p Publish
		err := p.Parse(h.Flags, body, v)
		return p, err
	case PUBACK, PUBREC, PUBREL, PUBCOMP:
		return ParseAck(h.Type, body, v)
	case SUBSCRIBE:
		return ParseSubscribe(body, v)
	case UNSUBSCRIBE:
		return ParseUnsubscribe(body, v)
	case DISCONNECT:
		return ParseDisconnect(body, v)
	case AUTH:
		return ParseAuth(body)
	}
	return nil, ParseEmpty(body)
}

// packetCase is one packet of a client, byte by byte.
type packetCase struct {
	name   string
	v      Version
	packet string
	want   any           // of a good packet
	reason broker.Reason // of a malformed one
}

var goodPackets = []packetCase{
	{"CONNECT 3.1.1 smallest", V311, "10 0d 0004 'MQTT' 04 02 003c 0001 'a'", &Connect{
		Version: V311, CleanStart: true, KeepAlive: 60, ClientID: "a", ReceiveMaximum: 65535, ProblemInfo: true,
	}, 0},
	{"CONNECT 3.1", V31, "10 0f 0006 'MQIsdp' 03 02 000a 0001 'a'", &Connect{
		Version: V31, CleanStart: true, KeepAlive: 10, ClientID: "a", ReceiveMaximum: 65535, ProblemInfo: true,
	}, 0},
	{"CONNECT 3.1.1 empty id, clean", V311, "10 0c 0004 'MQTT' 04 02 ffff 0000", &Connect{
		Version: V311, CleanStart: true, KeepAlive: 65535, ReceiveMaximum: 65535, ProblemInfo: true,
	}, 0},
	{"CONNECT 3.1.1 length in four bytes", V311, "10 8d808000 0004 'MQTT' 04 02 003c 0001 'a'", &Connect{
		Version: V311, CleanStart: true, KeepAlive: 60, ClientID: "a", ReceiveMaximum: 65535, ProblemInfo: true,
	}, 0},
	{
		"CONNECT 3.1.1 with everything, empty will payload and password", V311,
		"10 1a 0004 'MQTT' 04 ec 0000 0001 'a' 0003 'w/t' 0000 0002 'me' 0000", &Connect{
			Version: V311, ClientID: "a", HasUsername: true, Username: "me", HasPassword: true, Password: []byte{},
			Will: &Will{Topic: "w/t", Payload: []byte{}, QoS: 1, Retain: true}, ReceiveMaximum: 65535, ProblemInfo: true,
		}, 0,
	},
	{"CONNECT 5 password without user name", V5, "10 11 0004 'MQTT' 05 42 0000 00 0000 0002 'pw'", &Connect{
		Version: V5, CleanStart: true, HasPassword: true, Password: []byte("pw"), ReceiveMaximum: 65535, ProblemInfo: true,
	}, 0},
	{
		"CONNECT 5 with all properties", V5,
		"10 3e 0004 'MQTT' 05 00 0000 25 11 ffffffff 21 0005 27 00000064 22 0003 19 01 17 00 26 0001 'k' 0001 'v' 15 0003 'jwt' 16 0001 'd' 000c 'twelve chars'", &Connect{
			Version: V5, ClientID: "twelve chars", SessionExpiry: 0xFFFFFFFF, ReceiveMaximum: 5, MaximumPacketSize: 100,
			TopicAliasMaximum: 3, HasAuthMethod: true, AuthMethod: "jwt", AuthData: []byte("d"),
		}, 0,
	},
	{
		"CONNECT 5 will with all properties", V5,
		"10 35 0004 'MQTT' 05 06 0000 00 0000 20 18 00000005 01 01 02 0000000a 03 0001 'c' 08 0001 'r' 09 0002 0102 26 0001 'k' 0001 'v' 0001 't' 0002 'hi'", &Connect{
			Version: V5, CleanStart: true, ReceiveMaximum: 65535, ProblemInfo: true,
			Will: &Will{Topic: "t", Payload: []byte("hi"), Delay: 5, HasExpiry: true, Expiry: 10, Properties: &broker.Properties{
				PayloadFormat: broker.FormatUTF8, ContentType: "c", ResponseTopic: "r", CorrelationData: []byte{1, 2},
				User: []broker.UserProperty{{Key: "k", Value: "v"}},
			}},
		}, 0,
	},
	{"PUBLISH QoS 0", V311, "30 07 0003 'a/b' 'hi'", Publish{Topic: []byte("a/b"), Payload: []byte("hi")}, 0},
	{"PUBLISH QoS 0 without payload", V311, "31 05 0003 'a/b'", Publish{Topic: []byte("a/b"), Payload: []byte{}, Retain: true}, 0},
	{"PUBLISH QoS 1 dup", V311, "3a 09 0003 'a/b' 000a 'hi'", Publish{Topic: []byte("a/b"), Payload: []byte("hi"), QoS: 1, Dup: true, PacketID: 10}, 0},
	{"PUBLISH QoS 2 v5", V5, "34 0a 0003 'a/b' ffff 00 'hi'", Publish{Topic: []byte("a/b"), Payload: []byte("hi"), QoS: 2, PacketID: 65535}, 0},
	{
		"PUBLISH v5 with all properties", V5,
		"30 28 0001 't' 22 01 00 02 00000000 03 0000 08 0001 'r' 09 0000 23 0007 26 0001 'k' 0001 'v' 26 0001 'k' 0001 'w' 'hi'",
		Publish{Topic: []byte("t"), Payload: []byte("hi"), Alias: 7, HasExpiry: true, Properties: &broker.Properties{
			PayloadFormat: broker.FormatBytes, EmptyContentType: true, ResponseTopic: "r", CorrelationData: []byte{},
			User: []broker.UserProperty{{Key: "k", Value: "v"}, {Key: "k", Value: "w"}},
		}},
		0,
	},
	{"PUBLISH v5 by alias", V5, "30 07 0000 03 23 0001 'x'", Publish{Topic: []byte{}, Payload: []byte("x"), Alias: 1}, 0},
	{"PUBACK", V311, "40 02 0001", Ack{PacketID: 1}, 0},
	{"PUBACK v5 with code", V5, "40 03 0001 10", Ack{PacketID: 1, Code: 0x10}, 0},
	{"PUBREC v5 with properties", V5, "50 0d 0001 87 09 1f 0001 'x' 26 0000 0000", Ack{PacketID: 1, Code: 0x87}, 0},
	{"PUBREL v5 unknown id", V5, "62 03 0001 92", Ack{PacketID: 1, Code: 0x92}, 0},
	{"PUBREL 3.1 with DUP", V31, "6a 02 0001", Ack{PacketID: 1}, 0},
	{"PUBCOMP v5 empty properties", V5, "70 04 0001 00 00", Ack{PacketID: 1}, 0},
	{"SUBSCRIBE", V311, "82 0a 0001 0001 'a' 01 0001 '#' 02", Subscribe{PacketID: 1, Filters: []broker.Subscription{{Filter: "a", QoS: 1}, {Filter: "#", QoS: 2}}}, 0},
	{
		"SUBSCRIBE v5 with options", V5, "82 0a 0001 03 0b ff7f 0001 'a' 2d",
		Subscribe{PacketID: 1, Filters: []broker.Subscription{{Filter: "a", QoS: 1, NoLocal: true, RetainAsPublished: true, RetainHandling: 2, ID: 16383}}},
		0,
	},
	{"UNSUBSCRIBE", V311, "a2 08 0001 0001 'a' 0001 'b'", Unsubscribe{PacketID: 1, Filters: []string{"a", "b"}}, 0},
	{"UNSUBSCRIBE v5", V5, "a2 0b 0001 05 26 0000 0000 0001 'a'", Unsubscribe{PacketID: 1, Filters: []string{"a"}}, 0},
	{"PINGREQ", V311, "c0 00", nil, 0},
	{"DISCONNECT", V311, "e0 00", Disconnect{}, 0},
	{"DISCONNECT v5 code only", V5, "e0 01 04", Disconnect{Code: 4}, 0},
	{"DISCONNECT v5 with expiry", V5, "e0 07 00 05 11 0000000a", Disconnect{HasSessionExpiry: true, SessionExpiry: 10}, 0},
	{"AUTH empty", V5, "f0 00", Auth{}, 0},
	{"AUTH", V5, "f0 0a 18 08 15 0001 'm' 16 0001 'd'", Auth{Code: 0x18, AuthMethod: "m", AuthData: []byte("d")}, 0},
}

var badPackets = []packetCase{
	{"reserved type 0", V311, "00 00", nil, broker.Malformed},
	{"AUTH before version 5", V311, "f0 00", nil, broker.Malformed},
	{"PINGREQ with flags", V311, "c1 00", nil, broker.Malformed},
	{"PINGREQ with body", V311, "c0 01 00", nil, broker.Malformed},
	{"SUBSCRIBE without flag 2", V5, "80 07 0001 00 0001 'a' 00", nil, broker.Malformed},
	{"PUBREL with flags 0", V5, "60 02 0001", nil, broker.Malformed},
	{"PUBREL 3.1.1 with DUP", V311, "6a 02 0001", nil, broker.Malformed},
	{"length of five bytes", V311, "30 ffffffff 7f", nil, broker.Malformed},
	{"length not minimal, v5", V5, "c0 8000", nil, broker.Malformed},
	{"CONNECT length not minimal, v5", 0, "10 8e00 0004 'MQTT' 05 02 003c 00 0001 'a'", nil, broker.Malformed},

	{"CONNECT unknown name", 0, "10 0d 0004 'MQTX' 04 02 003c 0001 'a'", nil, broker.Malformed},
	{"CONNECT level 6", 0, "10 0d 0004 'MQTT' 06 02 003c 0001 'a'", nil, broker.UnsupportedVersion},
	{"CONNECT level 3 as MQTT", 0, "10 0d 0004 'MQTT' 03 02 003c 0001 'a'", nil, broker.UnsupportedVersion},
	{"CONNECT level 4 as MQIsdp", 0, "10 0f 0006 'MQIsdp' 04 02 003c 0001 'a'", nil, broker.UnsupportedVersion},
	{"CONNECT reserved flag", 0, "10 0d 0004 'MQTT' 04 03 003c 0001 'a'", nil, broker.Malformed},
	{"CONNECT will QoS without will", 0, "10 0d 0004 'MQTT' 04 0a 003c 0001 'a'", nil, broker.Malformed},
	{"CONNECT will retain without will", 0, "10 0d 0004 'MQTT' 04 22 003c 0001 'a'", nil, broker.Malformed},
	{"CONNECT will QoS 3", 0, "10 13 0004 'MQTT' 04 1e 003c 0001 'a' 0001 't' 0001 'x'", nil, broker.Malformed},
	{"CONNECT will topic with wildcard", 0, "10 13 0004 'MQTT' 04 06 003c 0001 'a' 0001 '#' 0001 'x'", nil, broker.Malformed},
	{"CONNECT empty will topic", 0, "10 12 0004 'MQTT' 04 06 003c 0001 'a' 0000 0001 'x'", nil, broker.Malformed},
	{"CONNECT 3.1.1 password without user name", 0, "10 10 0004 'MQTT' 04 42 003c 0001 'a' 0001 'p'", nil, broker.Malformed},
	{"CONNECT 3.1.1 empty id, not clean", 0, "10 0c 0004 'MQTT' 04 00 003c 0000", nil, broker.InvalidClientID},
	{"CONNECT 3.1 empty id", 0, "10 0e 0006 'MQIsdp' 03 02 003c 0000", nil, broker.InvalidClientID},
	{"CONNECT bytes behind", 0, "10 0e 0004 'MQTT' 04 02 003c 0001 'a' 00", nil, broker.Malformed},
	{"CONNECT id with surrogate", 0, "10 0f 0004 'MQTT' 04 02 003c 0003 eda080", nil, broker.Malformed},
	{"CONNECT id with NUL", 0, "10 0d 0004 'MQTT' 04 02 003c 0001 00", nil, broker.Malformed},
	{"CONNECT v5 Receive Maximum 0", 0, "10 11 0004 'MQTT' 05 02 003c 03 21 0000 0001 'a'", nil, broker.ProtocolError},
	{"CONNECT v5 Maximum Packet Size 0", 0, "10 13 0004 'MQTT' 05 02 003c 05 27 00000000 0001 'a'", nil, broker.ProtocolError},
	{"CONNECT v5 Request Problem Information 2", 0, "10 10 0004 'MQTT' 05 02 003c 02 17 02 0001 'a'", nil, broker.ProtocolError},
	{"CONNECT v5 Request Response Information 2", 0, "10 10 0004 'MQTT' 05 02 003c 02 19 02 0001 'a'", nil, broker.ProtocolError},
	{"CONNECT v5 property twice", 0, "10 12 0004 'MQTT' 05 02 003c 04 17 01 17 01 0001 'a'", nil, broker.ProtocolError},
	{"CONNECT v5 property of PUBLISH", 0, "10 11 0004 'MQTT' 05 02 003c 03 23 0001 0001 'a'", nil, broker.Malformed},
	{"CONNECT v5 will delay outside the will", 0, "10 13 0004 'MQTT' 05 02 003c 05 18 00000001 0001 'a'", nil, broker.Malformed},
	{"CONNECT v5 authentication data alone", 0, "10 12 0004 'MQTT' 05 02 003c 04 16 0001 'd' 0001 'a'", nil, broker.ProtocolError},
	{"CONNECT v5 property length overrun", 0, "10 0e 0004 'MQTT' 05 02 003c 10 0001 'a'", nil, broker.Malformed},
	{"CONNECT v5 property cut off", 0, "10 10 0004 'MQTT' 05 02 003c 02 21 00 0001 'a'", nil, broker.Malformed},
	{"CONNECT v5 property length not minimal", 0, "10 0f 0004 'MQTT' 05 02 003c 8000 0001 'a'", nil, broker.Malformed},

	{"PUBLISH QoS 3", V311, "36 07 0001 't' 0001 00 00", nil, broker.Malformed},
	{"PUBLISH DUP with QoS 0", V311, "38 03 0001 't'", nil, broker.Malformed},
	{"PUBLISH packet id 0", V311, "32 05 0001 't' 0000", nil, broker.ProtocolError},
	{"PUBLISH without packet id", V311, "32 03 0001 't'", nil, broker.Malformed},
	{"PUBLISH topic longer than packet", V311, "30 03 0002 't'", nil, broker.Malformed},
	{"PUBLISH empty topic", V311, "30 02 0000", nil, broker.Malformed},
	{"PUBLISH v5 empty topic without alias", V5, "30 03 0000 00", nil, broker.ProtocolError},
	{"PUBLISH topic with #", V5, "30 05 0002 't#' 00", nil, broker.Malformed},
	{"PUBLISH topic with +", V311, "30 03 0001 '+'", nil, broker.Malformed},
	{"PUBLISH topic with NUL", V311, "30 03 0001 00", nil, broker.Malformed},
	{"PUBLISH topic not UTF-8", V311, "30 03 0001 ff", nil, broker.Malformed},
	{"PUBLISH v5 alias 0", V5, "30 07 0001 't' 03 23 0000", nil, broker.InvalidAlias},
	{"PUBLISH v5 alias twice", V5, "30 0a 0001 't' 06 23 0001 23 0001", nil, broker.ProtocolError},
	{"PUBLISH v5 subscription identifier", V5, "30 06 0001 't' 02 0b 01", nil, broker.ProtocolError},
	{"PUBLISH v5 payload format 2", V5, "30 06 0001 't' 02 01 02", nil, broker.Malformed},
	{"PUBLISH v5 response topic with wildcard", V5, "30 08 0001 't' 04 08 0001 '#'", nil, broker.Malformed},
	{"PUBLISH v5 unknown property", V5, "30 06 0001 't' 02 7f 01", nil, broker.Malformed},
	{"PUBLISH v5 property of CONNACK", V5, "30 06 0001 't' 02 24 01", nil, broker.Malformed},
	{"PUBLISH v5 property reads into the payload", V5, "30 0b 0001 't' 02 02 00 'abcde'", nil, broker.Malformed},
	{"PUBLISH v5 without property length", V5, "30 03 0001 't'", nil, broker.Malformed},

	{"PUBACK packet id 0", V311, "40 02 0000", nil, broker.ProtocolError},
	{"PUBACK 3.1.1 with code", V311, "40 03 0001 00", nil, broker.Malformed},
	{"PUBACK v5 unknown code", V5, "40 03 0001 01", nil, broker.ProtocolError},
	{"PUBREL v5 code of PUBACK", V5, "62 03 0001 10", nil, broker.ProtocolError},
	{"PUBACK v5 bytes behind", V5, "40 05 0001 00 00 00", nil, broker.Malformed},
	{"PUBACK v5 reason string twice", V5, "40 0a 0001 00 06 1f 0000 1f 0000", nil, broker.ProtocolError},

	{"SUBSCRIBE without filter", V311, "82 02 0001", nil, broker.ProtocolError},
	{"SUBSCRIBE packet id 0", V311, "82 06 0000 0001 'a' 00", nil, broker.ProtocolError},
	{"SUBSCRIBE without options", V5, "82 06 0001 00 0001 'a'", nil, broker.Malformed},
	{"SUBSCRIBE QoS 3", V311, "82 06 0001 0001 'a' 03", nil, broker.ProtocolError},
	{"SUBSCRIBE 3.1.1 with version 5 options", V311, "82 06 0001 0001 'a' 04", nil, broker.Malformed},
	{"SUBSCRIBE v5 reserved bits", V5, "82 07 0001 00 0001 'a' 40", nil, broker.Malformed},
	{"SUBSCRIBE v5 retain handling 3", V5, "82 07 0001 00 0001 'a' 30", nil, broker.ProtocolError},
	{"SUBSCRIBE v5 identifier 0", V5, "82 09 0001 02 0b 00 0001 'a' 00", nil, broker.ProtocolError},
	{"SUBSCRIBE v5 identifier twice", V5, "82 0b 0001 04 0b 01 0b 02 0001 'a' 00", nil, broker.ProtocolError},
	{"SUBSCRIBE v5 identifier not minimal", V5, "82 0a 0001 03 0b 8100 0001 'a' 00", nil, broker.Malformed},
	{"SUBSCRIBE v5 no local on shared, short form", V5, "82 0e 0001 00 0008 '$queue/a' 04", nil, broker.ProtocolError},
	{"SUBSCRIBE v5 no local on shared", V5, "82 10 0001 00 000a '$share/g/a' 04", nil, broker.ProtocolError},
	{"SUBSCRIBE filter not UTF-8", V311, "82 06 0001 0001 ff 00", nil, broker.Malformed},

	{"UNSUBSCRIBE without filter", V5, "a2 03 0001 00", nil, broker.ProtocolError},
	{"UNSUBSCRIBE packet id 0", V311, "a2 05 0000 0001 'a'", nil, broker.ProtocolError},
	{"UNSUBSCRIBE v5 subscription identifier", V5, "a2 08 0001 02 0b 01 0001 'a'", nil, broker.Malformed},

	{"DISCONNECT 3.1.1 with body", V311, "e0 01 00", nil, broker.Malformed},
	{"DISCONNECT v5 code of a server", V5, "e0 01 8e", nil, broker.ProtocolError},
	{"DISCONNECT v5 bytes behind", V5, "e0 03 00 00 00", nil, broker.Malformed},
	{"AUTH without method", V5, "f0 02 18 00", nil, broker.ProtocolError},
	{"AUTH unknown code", V5, "f0 06 01 04 15 0001 'm'", nil, broker.ProtocolError},
}

func TestGoodPackets(t *testing.T) {
	for _, c := range goodPackets {
		t.Run(c.name, func(t *testing.T) {
			got, err := parseAny(raw(t, c.packet), c.v)
			require.NoError(t, err)
			require.Equal(t, c.want, got)
		})
	}
}

func TestMalformedPackets(t *testing.T) {
	for _, c := range badPackets {
		t.Run(c.name, func(t *testing.T) {
			got, err := parseAny(raw(t, c.packet), c.v)
			require.Error(t, err, "parsed as %+v", got)
			_, whole, headerErr := ParseHeader(raw(t, c.packet), c.v)
			require.True(t, whole || headerErr != nil, "the case itself has no whole header")
			require.Equal(t, c.reason, broker.ReasonOf(err), "%v", err)
		})
	}
}
