package ws

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// frame builds a frame of a client.
func frame(first byte, payload string) string {
	return header(first, 0x80, len(payload)) + mask(payload)
}

const key = "\x37\xfa\x21\x3d"

func header(first, masked byte, length int) string {
	b := []byte{first}
	switch {
	case length < 126:
		b = append(b, masked|byte(length))
	case length <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, masked|126), uint16(length))
	default:
		b = binary.BigEndian.AppendUint64(append(b, masked|127), uint64(length))
	}
	if masked != 0 {
		b = append(b, key...)
	}
	return string(b)
}

func mask(payload string) string {
	b := []byte(payload)
	for i := range b {
		b[i] ^= key[i%4]
	}
	return string(b)
}

const (
	fin    = 0x80
	binFin = fin | opBinary
)

// big is longer than a length of 16 bits can say.
var big = strings.Repeat("0123456789abcdef", 5000)

var goodFrames = []struct {
	name, in, out string
	ping          string // last ping
	code          uint16 // of a Close frame
}{
	{"one frame", frame(binFin, "hello"), "hello", "", 0},
	{"empty", frame(binFin, "") + frame(binFin, "x"), "x", "", 0},
	{"125 bytes", frame(binFin, big[:125]), big[:125], "", 0},
	{"126 bytes", frame(binFin, big[:126]), big[:126], "", 0},
	{"65535 bytes", frame(binFin, big[:65535]), big[:65535], "", 0},
	{"65536 bytes", frame(binFin, big[:65536]), big[:65536], "", 0},
	{"several", frame(binFin, "a") + frame(binFin, "bc") + frame(binFin, "def"), "abcdef", "", 0},
	{"fragments", frame(opBinary, "a") + frame(opContinuation, "bc") + frame(fin|opContinuation, "d") + frame(binFin, "e"), "abcde", "", 0},
	{"ping between fragments", frame(opBinary, "a") + frame(fin|opPing, "are you there") + frame(fin|opContinuation, "d"), "ad", "are you there", 0},
	{"of pings the last", frame(fin|opPing, "1") + frame(fin|opPing, "2") + frame(binFin, "x"), "x", "2", 0},
	{"pong of nothing", frame(fin|opPong, "?") + frame(binFin, "x"), "x", "", 0},
	{"close", frame(binFin, "x") + frame(fin|opClose, "") + "never looked at", "x", "", codeNormal},
	{"close with code", frame(fin|opClose, "\x03\xe9bye"), "", "", 1001},
	{"close in a message", frame(opBinary, "x") + frame(fin|opClose, "\x0f\xa0"), "x", "", 4000},
}

func TestDecode(t *testing.T) {
	for _, tc := range goodFrames {
		t.Run(tc.name, func(t *testing.T) {
			for _, step := range []int{len(tc.in), 1, 3, 7, 1000} {
				d := decoder{maxMessage: 1 << 20}
				var out []byte
				var ping string
				for i := 0; i < len(tc.in) && !d.closed; i += step {
					b := []byte(tc.in[i:min(i+step, len(tc.in))])
					n, err := d.decode(b)
					require.NoError(t, err)
					out = append(out, b[:n]...)
					if d.pinged {
						ping, d.pinged = string(d.ping), false
					}
				}
				require.Equal(t, tc.out, string(out), "in steps of %d", step)
				require.Equal(t, tc.ping, ping)
				require.Equal(t, tc.code != 0, d.closed)
				require.Equal(t, tc.code, d.code)
			}
		})
	}
}

var badFrames = []struct {
	name, in string
	code     uint16
}{
	{"text", frame(fin|opText, "hello"), codeUnsupported},
	{"text in fragments", frame(opText, "hello"), codeUnsupported},
	{"not masked", header(binFin, 0, 5) + "hello", codeProtocolError},
	{"reserved bit 1", frame(0x40|binFin, "x"), codeProtocolError},
	{"reserved bit 3", frame(0x10|binFin, "x"), codeProtocolError},
	{"opcode 3", frame(fin|3, "x"), codeProtocolError},
	{"opcode 11", frame(fin|11, "x"), codeProtocolError},
	{"continuation of nothing", frame(fin|opContinuation, "x"), codeProtocolError},
	{"continuation after the end", frame(opBinary, "a") + frame(fin|opContinuation, "b") + frame(fin|opContinuation, "c"), codeProtocolError},
	{"message in a message", frame(opBinary, "a") + frame(binFin, "b"), codeProtocolError},
	{"fragmented ping", frame(opPing, "a"), codeProtocolError},
	{"long ping", frame(fin|opPing, big[:126]), codeProtocolError},
	{"16-bit length of 125", "\x82\xfe\x00\x7d" + key, codeProtocolError},
	{"64-bit length of 65535", "\x82\xff\x00\x00\x00\x00\x00\x00\xff\xff" + key, codeProtocolError},
	{"negative length", "\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00" + key, codeProtocolError},
	{"too big", "\x82\xff\x00\x00\x00\x00\x00\x10\x00\x01" + key, codeTooBig},
	{"too big in fragments", frame(opBinary, big) + strings.Repeat(frame(opContinuation, big), 13), codeTooBig},
	{"huge", "\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff" + key, codeTooBig},
	{"close with half a code", frame(fin|opClose, "\x03"), codeProtocolError},
	{"close 999", frame(fin|opClose, "\x03\xe7"), codeProtocolError},
	{"close 1005", frame(fin|opClose, "\x03\xed"), codeProtocolError},
	{"close 1006", frame(fin|opClose, "\x03\xee"), codeProtocolError},
	{"close 1015", frame(fin|opClose, "\x03\xf7"), codeProtocolError},
	{"close 2999", frame(fin|opClose, "\x0b\xb7"), codeProtocolError},
	{"close 5000", frame(fin|opClose, "\x13\x88"), codeProtocolError},
	{"close with a reason that is not UTF-8", frame(fin|opClose, "\x03\xe8\xff"), codeInvalidData},
}

func TestDecodeRefuses(t *testing.T) {
	for _, tc := range badFrames {
		t.Run(tc.name, func(t *testing.T) {
			for _, step := range []int{len(tc.in), 1} {
				d := decoder{maxMessage: 1 << 20}
				var err error
				for i := 0; i < len(tc.in) && err == nil; i += step {
					_, err = d.decode([]byte(tc.in[i : i+step]))
				}
				var v *violation
				require.ErrorAs(t, err, &v, "in steps of %d", step)
				require.Equal(t, tc.code, v.code)
			}
		})
	}
}

// What came before the frame that is wrong counts.
func TestDecodeKeepsWhatWasGood(t *testing.T) {
	d := decoder{maxMessage: 10}
	b := []byte(frame(binFin, "good") + frame(fin|opText, "bad"))
	n, err := d.decode(b)
	require.Error(t, err)
	require.Equal(t, "good", string(b[:n]))
}

// FuzzDecode: no panic, and the result does not depend on how the bytes were cut.
func FuzzDecode(f *testing.F) {
	for _, tc := range goodFrames {
		if len(tc.in) < 1000 {
			f.Add([]byte(tc.in), uint64(1))
		}
	}
	for _, tc := range badFrames {
		if len(tc.in) < 1000 {
			f.Add([]byte(tc.in), uint64(2))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, seed uint64) {
		whole, d1, wholeErr := decodeAll(in, func() int { return len(in) })
		r := rand.New(rand.NewPCG(seed, 1))
		cut, d2, cutErr := decodeAll(in, func() int { return 1 + r.IntN(20) })
		require.Equal(t, wholeErr, cutErr)
		require.True(t, bytes.Equal(whole, cut))
		require.Equal(t, d1, d2)
		require.LessOrEqual(t, len(d1.control), maxControl)
	})
}

func decodeAll(in []byte, step func() int) (out []byte, d decoder, err error) {
	d.maxMessage = 1000
	for i := 0; i < len(in) && err == nil && !d.closed; {
		end := min(i+step(), len(in))
		b := bytes.Clone(in[i:end])
		var n int
		n, err = d.decode(b)
		out = append(out, b[:n]...)
		i = end
	}
	return out, d, err
}
