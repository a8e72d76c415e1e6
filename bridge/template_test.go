package bridge

import (
	"testing"

	"github.com/stretchr/testify/require"

	"gantry/broker"
)

func message() *broker.Message {
	return &broker.Message{
		Topic: "plant/line-3/temp", Payload: []byte(`{"v": 21.5, "tag": {"id": "t\"7", "ok": true}, "list": [1, {"x": null}]}`), QoS: 1,
		ClientID: "press-1", Username: "op", Protocol: "mqtt", Time: 1700000000123,
		Properties: &broker.Properties{User: []broker.UserProperty{{Key: "site", Value: "b"}, {Key: "site", Value: "c"}}},
	}
}

func TestTemplate(t *testing.T) {
	for source, want := range map[string]string{
		"":                              "",
		"fixed":                         "fixed",
		"${topic}":                      "plant/line-3/temp",
		"plant.${topic[1]}":             "plant.line-3",
		"${topic[0]}${topic[2]}":        "planttemp",
		"${topic[-1]}|${topic[-3]}":     "temp|plant",
		"a${topic[3]}b${topic[-4]}c":    "abc",
		"${clientid}:${username}":       "press-1:op",
		"${qos}/${protocol}":            "1/mqtt",
		"${timestamp}":                  "1700000000123",
		"${payload.v}":                  "21.5",
		"${payload.tag.id}":             `t"7`,
		"${payload.tag.ok}":             "true",
		"${payload.tag}":                `{"id":"t\"7","ok":true}`,
		"${payload.list.0}":             "1",
		"[${payload.list.1.x}]":         "[]",
		"[${payload.list.9}]":           "[]",
		"[${payload.list.v}]":           "[]",
		"[${payload.nothing.here}]":     "[]",
		"[${payload.v.deeper}]":         "[]",
		"${user.site}-${user.other}":    "b-",
		"cost: $5 and } { stay as text": "cost: $5 and } { stay as text",
	} {
		tpl, err := ParseTemplate(source)
		require.NoError(t, err, source)
		require.Equal(t, want, string(tpl.Append(nil, message())), source)
		require.Equal(t, source, tpl.String())
	}
	tpl, err := ParseTemplate("${payload}|${payload.v}")
	require.NoError(t, err)
	require.Equal(t, "\xff\x00|", string(tpl.Append(nil, &broker.Message{Topic: "t", Payload: []byte("\xff\x00")})))
	var none *Template
	require.Empty(t, none.Append(nil, message()))
}

func TestTemplateErrorsNameTheVariable(t *testing.T) {
	for source, want := range map[string]string{
		"a${topic":        "${topic has no closing brace",
		"${nothing}":      "${nothing}: no such variable",
		"${}":             "${}: no such variable",
		"${topic[x]}":     "topic[n]",
		"${topic[1}":      "topic[n]",
		"${topic[]}":      "topic[n]",
		"${payload.}":     "empty step",
		"${payload.a..b}": "empty step",
		"${user.}":        "name of the user property is missing",
	} {
		_, err := ParseTemplate(source)
		require.ErrorContains(t, err, want, source)
	}
}

func TestTemplateStatic(t *testing.T) {
	fixed, err := ParseTemplate("events")
	require.NoError(t, err)
	text, ok := fixed.Static()
	require.True(t, ok)
	require.Equal(t, "events", text)
	moving, err := ParseTemplate("events.${qos}")
	require.NoError(t, err)
	_, ok = moving.Static()
	require.False(t, ok)
}

func FuzzTemplate(f *testing.F) {
	f.Add("plant.${topic[1]}.${payload.a.0}", "a/b", []byte(`{"a":[1]}`))
	f.Add("${user.x}${", "a", []byte(`{`))
	f.Fuzz(func(t *testing.T, source, topic string, payload []byte) {
		tpl, err := ParseTemplate(source)
		if err != nil {
			return
		}
		tpl.Append(nil, &broker.Message{Topic: topic, Payload: payload})
	})
}

func BenchmarkTemplate(b *testing.B) {
	tpl, err := ParseTemplate("plant.${topic[1]}.${clientid}")
	require.NoError(b, err)
	m := message()
	dst := make([]byte, 0, 128)
	b.ReportAllocs()
	for b.Loop() {
		dst = tpl.Append(dst[:0], m)
	}
}
