package broker

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func recordExamples() map[string]*Message {
	return map[string]*Message{
		"zero":  {},
		"plain": {Topic: "plant/7/temp", Payload: []byte("21.5"), QoS: 1, ClientID: "s7", Protocol: "mqtt", Time: 1_790_000_000_000},
		"all": {
			Topic: "a/b", Payload: []byte{0, 1, 2, 255}, QoS: 2, Retain: true, ClientID: "c", Username: "u", Protocol: "coap",
			Time: 5, Expires: math.MaxInt64,
			Properties: &Properties{
				PayloadFormat: FormatUTF8, ContentType: "application/json", ResponseTopic: "r/t", CorrelationData: []byte{9, 8},
				User: []UserProperty{{"k", "v"}, {"k", "w"}, {"", ""}},
			},
		},
		"empty properties":     {Topic: "t", Properties: &Properties{}},
		"empty content type":   {Topic: "t", Properties: &Properties{PayloadFormat: FormatUTF8, EmptyContentType: true, ResponseTopic: "r"}},
		"empty response topic": {Topic: "t", Properties: &Properties{EmptyResponseTopic: true}},
		"empty correlation":    {Topic: "t", Properties: &Properties{CorrelationData: []byte{}}},
		"negative times":       {Topic: "t", Time: math.MinInt64, Expires: -1},
		"payload of 70 KiB":    {Topic: strings.Repeat("x", 65535), Payload: bytes.Repeat([]byte("y"), 70<<10)},
		"topic is not UTF-8":   {Topic: "\xff\x00", Payload: []byte("p")},
	}
}

func TestRecordRoundTrip(t *testing.T) {
	for name, m := range recordExamples() {
		t.Run(name, func(t *testing.T) {
			b := AppendMessage([]byte("before"), m)
			require.Equal(t, "before", string(b[:6]))
			got, err := ParseMessage(b[6:])
			require.NoError(t, err)
			require.Equal(t, m, got)
		})
	}
}

func TestRecordEmptyPayloadIsNil(t *testing.T) {
	got, err := ParseMessage(AppendMessage(nil, &Message{Topic: "t", Payload: []byte{}}))
	require.NoError(t, err)
	require.Nil(t, got.Payload)
}

// Stores keep these bytes over upgrades: a change of the layout needs a new version number, and this one must stay readable.
func TestRecordVersion1IsFixed(t *testing.T) {
	b := []byte("\x01\x1d\x02\x0a\x14\x01t\x01c\x01u\x04mqtt\x01\x02ct\x02rt\x03\x09\x08\x01\x01k\x01vhi")
	want := &Message{
		Topic: "t", Payload: []byte("hi"), QoS: 1, Retain: true, ClientID: "c", Username: "u", Protocol: "mqtt", Time: 5, Expires: 10,
		Properties: &Properties{
			PayloadFormat: FormatBytes, ContentType: "ct", ResponseTopic: "rt", CorrelationData: []byte{9, 8},
			User: []UserProperty{{"k", "v"}},
		},
	}
	got, err := ParseMessage(b)
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.Equal(t, b, AppendMessage(nil, want))
}

// Version 2 is for what version 1 cannot say, and for nothing else.
func TestRecordVersion2IsFixed(t *testing.T) {
	b := []byte("\x02\x08\x01\x0a\x01t\x00\x00\x04mqtt\x0e\x00\x00\x00\x00x")
	want := &Message{
		Topic: "t", Payload: []byte("x"), Protocol: "mqtt", Time: 5,
		Properties: &Properties{PayloadFormat: FormatUTF8, EmptyContentType: true, EmptyResponseTopic: true},
	}
	got, err := ParseMessage(b)
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.Equal(t, b, AppendMessage(nil, want))

	b[0] = 1 // in version 1 these bits had no meaning
	_, err = ParseMessage(b)
	require.Error(t, err)
	for name, m := range recordExamples() {
		marked := m.Properties != nil && (m.Properties.EmptyContentType || m.Properties.EmptyResponseTopic)
		require.Equal(t, marked, AppendMessage(nil, m)[0] == 2, name)
	}
}

func TestRecordTruncatedOrExtendedIsRefused(t *testing.T) {
	for name, m := range recordExamples() {
		b := AppendMessage(nil, m)
		step := 1 + len(b)/2000
		for n := 0; n < len(b); n += step {
			_, err := ParseMessage(b[:n:n])
			require.Error(t, err, "%s cut to %d of %d bytes", name, n, len(b))
		}
		_, err := ParseMessage(append(slices.Clip(b), 0))
		require.Error(t, err, "%s with a byte too many", name)
	}
}

func TestRecordRefusesWhatItDoesNotKnow(t *testing.T) {
	good := AppendMessage(nil, recordExamples()["all"])
	for name, change := range map[string]func(b []byte){
		"version":                          func(b []byte) { b[0] = 3 },
		"flag":                             func(b []byte) { b[1] |= 0x80 },
		"QoS 3":                            func(b []byte) { b[1] |= 3 },
		"payload length":                   func(b []byte) { b[2] = 200 },
		"payload format":                   func(b []byte) { b[bytes.Index(b, []byte("\x10application"))-1] = 3 },
		"mark of a text that is not empty": func(b []byte) { b[0] = 2; b[bytes.Index(b, []byte("\x10application"))-1] |= 4 },
		"unknown mark":                     func(b []byte) { b[0] = 2; b[bytes.Index(b, []byte("\x10application"))-1] |= 0x10 },
		"user count":                       func(b []byte) { b[bytes.Index(b, []byte("\x03\x01k"))] = 100 },
	} {
		b := bytes.Clone(good)
		change(b)
		_, err := ParseMessage(b)
		require.Error(t, err, name)
	}
}

func TestRecordSharesNoMemory(t *testing.T) {
	m := recordExamples()["all"]
	b := AppendMessage(nil, m)
	got, err := ParseMessage(b)
	require.NoError(t, err)
	for i := range b {
		b[i] ^= 0xff
	}
	require.Equal(t, recordExamples()["all"], got)
}

func FuzzParseMessage(f *testing.F) {
	for _, m := range recordExamples() {
		if b := AppendMessage(nil, m); len(b) < 1000 {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseMessage(b)
		if err != nil {
			require.Nil(t, m)
			return
		}
		again, err := ParseMessage(AppendMessage(nil, m))
		require.NoError(t, err)
		require.Equal(t, m, again)
	})
}

func BenchmarkRecord(b *testing.B) {
	m := recordExamples()["all"]
	m.Payload = bytes.Repeat([]byte("x"), 200)
	buf := AppendMessage(nil, m)
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buf = AppendMessage(buf[:0], m)
		}
	})
	b.Run("parse", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ParseMessage(buf); err != nil {
				b.Fatal(err)
			}
		}
	})
}
