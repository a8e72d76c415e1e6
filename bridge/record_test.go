package bridge

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"gantry/broker"
)

func sampleRoute(t testing.TB) *Route {
	return &Route{
		Filter: "plant/#", Topic: template(t, "plant.${topic[1]}"), Key: template(t, "${clientid}"), QoS: 2,
		Headers: []Header{{Name: "mqtt-topic", Value: template(t, "${topic}")}, {Name: "none", Value: template(t, "${user.none}")}},
	}
}

func TestRecordKeepsEverything(t *testing.T) {
	m := message()
	m.Retain, m.Expires = true, 1800000000000
	var e encoder
	var r Record
	require.NoError(t, r.Decode(e.encode(sampleRoute(t), "edge-01", m)))
	require.Equal(t, "plant.line-3", string(r.Topic))
	require.Equal(t, "press-1", string(r.Key))
	require.Equal(t, []RecordHeader{{Name: []byte("mqtt-topic"), Value: []byte("plant/line-3/temp")}}, r.Headers)
	require.Equal(t, Raw, r.Format)
	require.EqualValues(t, 1, r.QoS, "not more than the message came with")
	require.Equal(t, m.Time, r.Time)
	require.Equal(t, m.Payload, r.Value)
	got, err := r.Message()
	require.NoError(t, err)
	require.Equal(t, m, got)
}

func TestRecordWithoutKeyOrPayload(t *testing.T) {
	m := &broker.Message{Topic: "a", Time: 5}
	var e encoder
	var r Record
	route := &Route{Filter: "#", Topic: template(t, "x"), Key: template(t, "${user.none}")}
	require.NoError(t, r.Decode(e.encode(route, "", m)))
	require.Nil(t, r.Key)
	require.Empty(t, r.Value)
	require.Empty(t, r.Headers)
}

func TestRecordTruncated(t *testing.T) {
	var e encoder
	m := message()
	m.Payload = nil
	whole := e.encode(sampleRoute(t), "", m)
	var r Record
	require.NoError(t, r.Decode(whole))
	for n := range whole {
		require.Error(t, r.Decode(whole[:n]), "prefix of %d bytes", n)
	}
	for _, bad := range [][]byte{{2, 0}, {1, 3}, {1, 0x10}} {
		require.Error(t, r.Decode(append(bad, whole[2:]...)))
	}
}

func TestEnvelopeIsTheFormOfThePlugin(t *testing.T) {
	route := &Route{Filter: "#", Topic: template(t, "x"), Format: Envelope}
	m := message()
	m.Payload, m.Retain = []byte("21.5 \"°C\"\n\x01"), true
	var e encoder
	var r Record
	require.NoError(t, r.Decode(e.encode(route, "emq@127.0.0.1", m)))
	require.Equal(t, Envelope, r.Format)
	require.Equal(t, `{"type":"public","client_id":"press-1","message":{"username":"op","topic":"plant/line-3/temp",`+
		`"payload":"21.5 \"°C\"\n\u0001","qos":1,"dup":0,"retain":1},"cluster_node":"emq@127.0.0.1","ts":1700000000123}`, string(r.Value))

	m.Payload = []byte{0xff, 0}
	require.NoError(t, r.Decode(e.encode(route, "n", m)))
	var got struct {
		Message struct {
			Payload  []byte `json:"payload"`
			Encoding string `json:"payload_encoding"`
		} `json:"message"`
	}
	require.NoError(t, json.Unmarshal(r.Value, &got))
	require.Equal(t, m.Payload, got.Message.Payload)
	require.Equal(t, "base64", got.Message.Encoding)
}

func FuzzEnvelope(f *testing.F) {
	f.Add("c", "a/b", []byte("x"))
	f.Add("\xff\"", "\u2028\\", []byte{0xff, '"'})
	f.Fuzz(func(t *testing.T, client, topic string, payload []byte) {
		var got map[string]any
		require.NoError(t, json.Unmarshal(appendEnvelope(nil, &broker.Message{ClientID: client, Topic: topic, Payload: payload}, "n"), &got))
	})
}

func FuzzRecord(f *testing.F) {
	var e encoder
	f.Add(append([]byte(nil), e.encode(sampleRoute(f), "n", message())...))
	f.Add([]byte{1, 4, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Record
		if r.Decode(b) == nil {
			_, _ = r.Message()
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	route, m := sampleRoute(b), message()
	var e encoder
	b.ReportAllocs()
	for b.Loop() {
		e.encode(route, "edge-01", m)
	}
}

func BenchmarkDecode(b *testing.B) {
	var e encoder
	rec := e.encode(sampleRoute(b), "edge-01", message())
	var r Record
	b.ReportAllocs()
	for b.Loop() {
		if err := r.Decode(rec); err != nil {
			b.Fatal(err)
		}
	}
}
