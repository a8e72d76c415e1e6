package proxyproto

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// v2 builds a header of version 2.
func v2(command, family byte, rest string) string {
	return v2Signature + string([]byte{command, family}) + string(binary.BigEndian.AppendUint16(nil, uint16(len(rest)))) + rest
}

const (
	addrs4 = "\xc0\x00\x02\x01\xc6\x33\x64\x02\xdc\x04\x07\x5b" // 192.0.2.1:56324 → 198.51.100.2:1883
	addrs6 = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\xdc\x04\x07\x5b"
	mapped = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc6\x33\x64\x02\xdc\x04\x07\x5b"
)

var good = []struct {
	name, text, source string
	own                bool
}{
	{"v1 TCP4", "PROXY TCP4 192.0.2.1 198.51.100.2 56324 1883\r\n", "192.0.2.1:56324", false},
	{"v1 TCP6", "PROXY TCP6 2001:db8::1 2001:db8::2 56324 1883\r\n", "[2001:db8::1]:56324", false},
	{"v1 TCP6 of an IPv4 client", "PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.2 56324 1883\r\n", "192.0.2.1:56324", false},
	{"v1 unknown", "PROXY UNKNOWN\r\n", "", false},
	{"v1 unknown with addresses", "PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", "", false},
	{"v1 longest", "PROXY UNKNOWN " + strings.Repeat("x", maxV1-len("PROXY UNKNOWN \r\n")) + "\r\n", "", false},
	{"v2 TCP4", v2(0x21, 0x11, addrs4), "192.0.2.1:56324", false},
	{"v2 TCP4 with more behind", v2(0x21, 0x11, addrs4+"\x04\x00\x02xx"), "192.0.2.1:56324", false},
	{"v2 TCP6", v2(0x21, 0x21, addrs6), "[2001:db8::1]:56324", false},
	{"v2 TCP6 of an IPv4 client", v2(0x21, 0x21, mapped), "192.0.2.1:56324", false},
	{"v2 Unix", v2(0x21, 0x31, strings.Repeat("\x00", 216)), "", false},
	{"v2 unspecified", v2(0x21, 0x00, ""), "", false},
	{"v2 of the proxy", v2(0x20, 0x00, ""), "", true},
	{"v2 of the proxy with addresses", v2(0x20, 0x11, addrs4), "", true},
	{"v2 longest", v2(0x21, 0x11, addrs4+strings.Repeat("\x00", maxV2-v2Fixed-len(addrs4))), "192.0.2.1:56324", false},
}

func TestParse(t *testing.T) {
	for _, tc := range good {
		t.Run(tc.name, func(t *testing.T) {
			h, n, err := parse([]byte(tc.text + "\x10\x0c\x00\x04MQTT"))
			require.NoError(t, err)
			require.Equal(t, len(tc.text), n)
			require.Equal(t, tc.own, h.own)
			var want netip.AddrPort
			if tc.source != "" {
				want = netip.MustParseAddrPort(tc.source)
			}
			require.Equal(t, want, h.source)
			for i := range len(tc.text) {
				_, _, err := parse([]byte(tc.text[:i]))
				require.ErrorIs(t, err, errShort, "the first %d bytes", i)
			}
		})
	}
}

var bad = []string{
	"\x10\x0c\x00\x04MQTT", "GET / HTTP/1.1\r\n", "\x16\x03\x01", "proxy ", "PROXY\t", " PROXY", "\x00",
	"PROXY \r\n", "PROXY TCP4\r\n", "PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n", "PROXY UNKNOWN\n", "PROXY unknown\r\n", "PROXY UNKNOWNX\r\n",
	"PROXY TCP4 192.0.2.1 198.51.100.2 56324 1883\n",
	"PROXY TCP4 192.0.2.1 198.51.100.2 56324\r\n", "PROXY TCP4 192.0.2.1 198.51.100.2 1 2 3\r\n", "PROXY TCP4  192.0.2.1 198.51.100.2 1 2\r\n",
	"PROXY TCP4 192.0.2.256 198.51.100.2 1 2\r\n", "PROXY TCP4 192.0.2.1 198.51.100 1 2\r\n", "PROXY TCP4 ::1 ::2 1 2\r\n", "PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n",
	"PROXY TCP6 fe80::1%eth0 ::2 1 2\r\n", "PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\r\n", "PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n", "PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n",
	"PROXY TCP4 1.1.1.1 2.2.2.2 1 -2\r\n", "PROXY TCP4 1.1.1.1 2.2.2.2 1 \r\n", "PROXY UNKNOWN " + strings.Repeat("x", maxV1),
	v2Signature[:11] + "\r", v2(0x11, 0x11, addrs4), v2(0x22, 0x11, addrs4), v2(0x31, 0x11, addrs4), v2(0x21, 0x12, addrs4), v2(0x21, 0x41, addrs4),
	v2(0x21, 0x11, addrs4[:11]), v2(0x21, 0x21, addrs4), v2(0x21, 0x31, strings.Repeat("x", 215)), v2(0x21, 0x11, strings.Repeat("x", maxV2)), v2(0x20, 0x00, strings.Repeat("x", maxV2)),
}

func TestParseRefuses(t *testing.T) {
	for _, text := range bad {
		_, n, err := parse([]byte(text))
		require.ErrorIs(t, err, errMalformed, "%q", text)
		require.Zero(t, n)
	}
}

// FuzzParse: no panic; a header needs all of its bytes and none behind them; what is malformed stays so with more bytes.
func FuzzParse(f *testing.F) {
	for _, tc := range good {
		f.Add([]byte(tc.text))
	}
	for _, text := range bad {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, n, err := parse(b)
		for i := range b {
			h1, n1, err1 := parse(b[:i])
			switch {
			case err1 == nil:
				require.NoError(t, err, "the first %d bytes are a header", i)
				require.Equal(t, fmt.Sprint(h, n), fmt.Sprint(h1, n1))
			case err == nil && i < n:
				require.ErrorIs(t, err1, errShort)
			case !errors.Is(err1, errShort):
				require.Error(t, err)
			}
		}
		if err != nil {
			require.Zero(t, h)
			return
		}
		require.LessOrEqual(t, n, len(b))
		require.False(t, h.own && h.source.IsValid())
	})
}
