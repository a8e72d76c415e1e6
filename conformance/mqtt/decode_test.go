//go:build unix

package mqtt

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestReaderIsStrict: what a server may not send is an error.
func TestReaderIsStrict(t *testing.T) {
	topic := str("t")
	for name, c := range map[string]struct {
		version byte
		raw     []byte
	}{
		"reserved acknowledge flags":            {v5, frame(connackType, []byte{2, 0}, props())},
		"CONNACK with a code of SUBACK":         {v5, frame(connackType, []byte{0, 0x8F}, props())},
		"CONNACK without property length":       {v5, frame(connackType, []byte{0, 0})},
		"CONNACK with properties in 3.1.1":      {v311, frame(connackType, []byte{0, 0}, props())},
		"return code 6":                         {v311, frame(connackType, []byte{0, 6})},
		"a property of CONNECT":                 {v5, frame(connackType, []byte{0, 0}, props(propU32(pWillDelay, 1)))},
		"a property twice":                      {v5, frame(connackType, []byte{0, 0}, props(propU16(pReceiveMaximum, 1), propU16(pReceiveMaximum, 1)))},
		"Receive Maximum 0":                     {v5, frame(connackType, []byte{0, 0}, props(propU16(pReceiveMaximum, 0)))},
		"Maximum QoS 2":                         {v5, frame(connackType, []byte{0, 0}, props(propByte(pMaximumQoS, 2)))},
		"PUBLISH with QoS 3":                    {v5, frame(publishType|6, topic, u16(1), props())},
		"DUP with QoS 0":                        {v5, frame(publishType|8, topic, props())},
		"packet identifier 0":                   {v5, frame(publishType|2, topic, u16(0), props())},
		"topic name with wildcard":              {v5, frame(publishType, str("a/#"), props())},
		"topic name that is not UTF-8":          {v5, frame(publishType, str("\xFF"), props())},
		"topic name with U+0000":                {v5, frame(publishType, str("a\x00"), props())},
		"neither topic name nor alias":          {v5, frame(publishType, str(""), props())},
		"topic alias 0":                         {v5, frame(publishType, topic, props(propU16(pTopicAlias, 0)))},
		"overlong property length":              {v5, frame(publishType, topic, []byte{0x80, 0})},
		"properties beyond the packet":          {v5, frame(publishType, topic, []byte{9, pPayloadFormat, 0})},
		"PUBACK with a code of PUBREL":          {v5, frame(pubackType, u16(1), []byte{0x92})},
		"PUBREL with flags 0":                   {v5, frame(pubrelType, u16(1))},
		"PUBACK with a code in 3.1.1":           {v311, frame(pubackType, u16(1), []byte{0})},
		"SUBACK code 3":                         {v5, frame(subackType, u16(1), props(), []byte{3})},
		"SUBACK code 0x87 in 3.1.1":             {v311, frame(subackType, u16(1), []byte{0x87})},
		"UNSUBACK with codes in 3.1.1":          {v311, frame(unsubackType, u16(1), []byte{0})},
		"PINGRESP with a body":                  {v5, frame(pingrespType, []byte{0})},
		"DISCONNECT in 3.1.1":                   {v311, frame(disconnectType)},
		"DISCONNECT with session expiry":        {v5, frame(disconnectType, []byte{0x8E}, props(propU32(pSessionExpiry, 1)))},
		"DISCONNECT with a code of a client":    {v5, frame(disconnectType, []byte{0x04})},
		"AUTH with the code of a client":        {v5, frame(authType, []byte{0x19}, props())},
		"a packet that only a client may send":  {v5, frame(pingreqType)},
		"user property with an overlong string": {v5, frame(pubackType, u16(1), []byte{0}, props(userProperty("\xC0\xAF", "v")))},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := decode(c.raw[0], c.raw[2:], c.version)
			require.Error(t, err)
		})
	}
}

// TestReaderTakesWhatIsLegal, whole, and nothing that is cut.
func TestReaderTakesWhatIsLegal(t *testing.T) {
	all := props(propString(pReasonString, "why"), userProperty("a", "1"), userProperty("a", "1"))
	for _, raw := range [][]byte{
		frame(connackType, []byte{1, 0}, props(propU16(pReceiveMaximum, 9), propString(pAssignedClientID, "id"), propByte(pSharedAvailable, 0))),
		frame(publishType|0x0D, str("t"), u16(7), props(propVarint(pSubscriptionID, 300), propVarint(pSubscriptionID, 1), propU16(pTopicAlias, 2))),
		frame(pubackType, u16(1), []byte{0x10}, all),
		frame(pubrelType|2, u16(1), []byte{0x92}, all),
		frame(subackType, u16(1), all, []byte{2}),
		frame(disconnectType, []byte{0x8E}, all),
		frame(authType, []byte{0x18}, props(propString(pAuthMethod, "m"), propString(pAuthData, "\xFF"))),
	} {
		_, err := decode(raw[0], raw[2:], v5)
		require.NoError(t, err, "% x", raw)
		shortest := map[byte]int{publishType: len(raw) - 2, pubackType: 2, pubrelType: 2, disconnectType: 0, authType: 0, subackType: len(raw) - 3}
		for n := range len(raw) - 2 {
			if _, err := decode(raw[0], raw[2:2+n], v5); err == nil {
				kind := raw[0] & 0xF0
				require.True(t, n == shortest[kind] || n == shortest[kind]+1, "%s cut to %d bytes is taken", kindName(kind), n)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(frame(pubrelType|2, u16(1), []byte{0x92}, props(propString(pReasonString, "why"))), v5)
	f.Add(frame(unsubackType, u16(1), props(), []byte{0x11}), v5)
	f.Add(frame(disconnectType, []byte{0x8E}, props(userProperty("a", "1"))), v5)
	f.Add(frame(authType, []byte{0x18}, props(propString(pAuthMethod, "m"), propString(pAuthData, "\xFF"))), v5)
	f.Add(frame(pingrespType), v311)
	f.Add(frame(connackType, []byte{0, 0}, props(propU16(pReceiveMaximum, 9))), v5)
	f.Add(frame(publishType|2, str("t"), u16(1), props(userProperty("a", "b")), []byte("payload")), v5)
	f.Add(frame(subackType, u16(1), []byte{0, 1}), v311)
	f.Fuzz(func(t *testing.T, raw []byte, version byte) {
		if len(raw) < 2 {
			return
		}
		p, err := decode(raw[0], raw[2:], version)
		if err == nil && p.kind == publishType && p.qos > 0 {
			require.NotZero(t, p.id)
		}
	})
}
