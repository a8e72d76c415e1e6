package mqtt

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"gantry/broker"
	"gantry/protocols/mqtt/wire"
)

// The codes that each packet may carry: sections 3.2.2.2, 3.4.2.1, 3.9.3,
// 3.11.3 and 3.14.2.1, and 3.1.1 section 3.2.2.3.
var (
	connackCodes    = []byte{0, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F}
	v3Codes         = []byte{0, 1, 2, 3, 4, 5, silent}
	disconnectCodes = []byte{0, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2}
	ackCodes        = []byte{0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99}
	subackCodes     = []byte{0, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2}
)

func TestEveryReasonHasItsCodes(t *testing.T) {
	for _, r := range broker.Reasons() {
		row, ok := codeTable[r]
		require.True(t, ok, "no row for %s", r)
		require.Equal(t, row, rows[r])
		for name, c := range map[string]struct {
			code    byte
			allowed []byte
		}{
			"CONNACK": {row.connack, connackCodes}, "return code": {row.v3, v3Codes},
			"DISCONNECT": {row.disconnect, disconnectCodes}, "PUBACK": {row.ack, ackCodes}, "SUBACK": {row.suback, subackCodes},
		} {
			require.GreaterOrEqual(t, bytes.IndexByte(c.allowed, c.code), 0, "%s cannot carry 0x%02x for %s", name, c.code, r)
			if r.OK() {
				require.Less(t, c.code, byte(0x80), "%s of %s", name, r)
				continue
			}
			require.NotZero(t, c.code, "%s of %s", name, r)
		}
		require.False(t, r.OK() && row.resend)
	}
}

func TestSubscribeCodes(t *testing.T) {
	require.Equal(t, byte(2), subscribeCode(broker.Success, 2, wire.V5))
	require.Equal(t, byte(1), subscribeCode(broker.Success, 1, wire.V311))
	require.Equal(t, byte(0x8F), subscribeCode(broker.InvalidFilter, 0, wire.V5))
	require.Equal(t, byte(0x80), subscribeCode(broker.InvalidFilter, 0, wire.V311))
}
