package httppush

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/broker"
)

var testTime = time.UnixMilli(1_700_000_000_000)

const fullForm = ` { "topic" : "a/b" , "payload" : "h\u00e9\ud83d\ude00\n\"" , "payload_encoding":"plain","qos":2,"retain":true,"clientid":"c1",
 "properties":{"payload_format_indicator":1,"message_expiry_interval":60,"response_topic":"r/t","correlation_data":"id 7",
 "user_properties":{"z":"1","a":"2"},"content_type":"text/plain"}} `

func TestFormHasEverything(t *testing.T) {
	it, err := parsePublish([]byte(fullForm), testTime)
	require.NoError(t, err)
	require.Equal(t, item{clientID: "c1", message: &broker.Message{
		Topic: "a/b", Payload: []byte("hé😀\n\""), QoS: 2, Retain: true, Time: testTime.UnixMilli(), Expires: testTime.UnixMilli() + 60_000,
		Properties: &broker.Properties{
			PayloadFormat: broker.FormatUTF8, ContentType: "text/plain", ResponseTopic: "r/t", CorrelationData: []byte("id 7"),
			User: []broker.UserProperty{{Key: "z", Value: "1"}, {Key: "a", Value: "2"}},
		},
	}}, it)
}

func TestFormDefaultsAndNulls(t *testing.T) {
	want := item{message: &broker.Message{Topic: "t", Payload: []byte{}, Time: testTime.UnixMilli()}}
	it, err := parsePublish([]byte(`{"payload":"","topic":"t"}`), testTime)
	require.NoError(t, err)
	require.Equal(t, want, it)
	it, err = parsePublish([]byte(`{"payload":"","topic":"t","qos":null,"retain":null,"clientid":null,"payload_encoding":null,"properties":null}`), testTime)
	require.NoError(t, err)
	require.Equal(t, want, it)
	it, err = parsePublish([]byte(`{"payload":"AP8=","topic":"t","payload_encoding":"base64","properties":{"payload_format_indicator":0,"user_properties":null}}`), testTime)
	require.NoError(t, err)
	require.Equal(t, []byte{0, 255}, it.message.Payload)
	require.Equal(t, broker.FormatBytes, it.message.Properties.PayloadFormat)
	it, err = parsePublish([]byte(formWith(`"properties":{"content_type":""}`)), testTime)
	require.NoError(t, err)
	require.Equal(t, &broker.Properties{EmptyContentType: true}, it.message.Properties)
	it, err = parsePublish([]byte(formWith(`"properties":{"content_type":null,"payload_format_indicator":1}`)), testTime)
	require.NoError(t, err)
	require.False(t, it.message.Properties.HasContentType(), "null is absent")
}

// form returns a form in which one member has another value.
func formWith(member string) string { return `{"topic":"t","payload":"p",` + member + `}` }

var badForms = map[string]struct{ body, detail string }{
	"empty":                   {"", "message must be an object"},
	"not an object":           {`[]`, "message must be an object"},
	"null":                    {`null`, "message must be an object"},
	"number":                  {`7`, "message must be an object"},
	"open":                    {`{`, "member name must be a string"},
	"trailing comma":          {`{"topic":"t","payload":"p",}`, "member name must be a string"},
	"missing comma":           {`{"topic":"t" "payload":"p"}`, "expected ',' or '}'"},
	"missing colon":           {`{"topic" "t"}`, "expected ':'"},
	"single quotes":           {`{'topic':'t'}`, "member name must be a string"},
	"comment":                 {`{/**/"topic":"t","payload":"p"}`, "member name must be a string"},
	"byte order mark":         {"\ufeff" + `{"topic":"t","payload":"p"}`, "must be an object"},
	"invalid UTF-8":           {"{\"topic\":\"t\",\"payload\":\"\xff\"}", "not valid UTF-8"},
	"trailing garbage":        {`{"topic":"t","payload":"p"} x`, "something follows"},
	"two values":              {`{"topic":"t","payload":"p"}{}`, "something follows"},
	"trailing NUL":            {`{"topic":"t","payload":"p"}` + "\x00", "something follows"},
	"duplicate":               {`{"topic":"t","payload":"p","topic":"u"}`, `"topic" is given more than once`},
	"duplicate by escape":     {`{"topic":"t","payload":"p","t\u006fpic":"u"}`, `"topic" is given more than once`},
	"unknown member":          {formWith(`"retian":true`), `unknown member "retian"`},
	"case matters":            {`{"Topic":"t","payload":"p"}`, `unknown member "Topic"`},
	"deep nesting":            {formWith(`"x":` + strings.Repeat("[", 100_000)), `unknown member "x"`},
	"deep properties":         {formWith(`"properties":` + strings.Repeat(`{"properties":`, 10_000)), `unknown member "properties" in properties`},
	"topic missing":           {`{"payload":"p"}`, "topic is missing"},
	"payload missing":         {`{"topic":"t"}`, "payload is missing"},
	"payload null":            {`{"topic":"t","payload":null}`, "payload must be a string"},
	"payload an object":       {`{"topic":"t","payload":{"a":1}}`, "payload must be a string"},
	"payload a number":        {`{"topic":"t","payload":1}`, "payload must be a string"},
	"topic empty":             {`{"topic":"","payload":"p"}`, "topic is empty"},
	"topic with wildcard":     {`{"topic":"a/+/b","payload":"p"}`, "wildcard"},
	"topic with NUL":          {`{"topic":"a\u0000","payload":"p"}`, "U+0000"},
	"topic of 129 levels":     {`{"topic":"` + strings.Repeat("/", 128) + `","payload":"p"}`, "levels"},
	"topic too long":          {`{"topic":"` + strings.Repeat("x", 65536) + `","payload":"p"}`, "65536 bytes"},
	"qos a string":            {formWith(`"qos":"1"`), "qos must be a whole number from 0 to 2"},
	"qos a fraction":          {formWith(`"qos":1.0`), "qos must be a whole number"},
	"qos an exponent":         {formWith(`"qos":1e0`), "qos must be a whole number"},
	"qos three":               {formWith(`"qos":3`), "qos must be a whole number"},
	"qos negative":            {formWith(`"qos":-1`), "qos must be a whole number"},
	"qos leading zero":        {formWith(`"qos":01`), "qos must be a whole number"},
	"qos minus zero":          {formWith(`"qos":-0`), "qos must be a whole number"},
	"qos plus":                {formWith(`"qos":+1`), "qos must be a whole number"},
	"qos boolean":             {formWith(`"qos":true`), "qos must be a whole number"},
	"qos huge":                {formWith(`"qos":99999999999999999999`), "qos must be a whole number"},
	"retain a number":         {formWith(`"retain":1`), "retain must be true or false"},
	"retain a string":         {formWith(`"retain":"true"`), "retain must be true or false"},
	"retain longer":           {formWith(`"retain":true1`), "expected ',' or '}'"},
	"encoding unknown":        {formWith(`"payload_encoding":"hex"`), "payload_encoding must be plain or base64"},
	"base64 alphabet":         {`{"topic":"t","payload":"!!!!","payload_encoding":"base64"}`, "not valid base64"},
	"base64 padding":          {`{"topic":"t","payload":"AP8","payload_encoding":"base64"}`, "not valid base64"},
	"base64 url alphabet":     {`{"topic":"t","payload":"_-_-","payload_encoding":"base64"}`, "not valid base64"},
	"base64 trailing bits":    {`{"topic":"t","payload":"AP9=","payload_encoding":"base64"}`, "not valid base64"},
	"base64 with newline":     {`{"topic":"t","payload":"AP8=\n","payload_encoding":"base64"}`, "not valid base64"},
	"clientid empty":          {formWith(`"clientid":""`), "clientid is empty"},
	"clientid a number":       {formWith(`"clientid":7`), "clientid must be a string"},
	"properties an array":     {formWith(`"properties":[]`), "properties must be an object"},
	"unknown property":        {formWith(`"properties":{"ttl":1}`), `unknown member "ttl" in properties`},
	"indicator two":           {formWith(`"properties":{"payload_format_indicator":2}`), "payload_format_indicator must be"},
	"indicator does not fit":  {`{"topic":"t","payload":"/w==","payload_encoding":"base64","properties":{"payload_format_indicator":1}}`, "payload is not UTF-8"},
	"expiry zero":             {formWith(`"properties":{"message_expiry_interval":0}`), "message_expiry_interval must be"},
	"expiry too large":        {formWith(`"properties":{"message_expiry_interval":4294967296}`), "message_expiry_interval must be"},
	"response topic wildcard": {formWith(`"properties":{"response_topic":"#"}`), "response_topic is not a valid topic name"},
	"content type with NUL":   {formWith(`"properties":{"content_type":"a\u0000"}`), "content_type contains U+0000"},
	"content type too long":   {formWith(`"properties":{"content_type":"` + strings.Repeat("x", 65536) + `"}`), "content_type is longer"},
	"correlation too long":    {formWith(`"properties":{"correlation_data":"` + strings.Repeat("x", 65536) + `"}`), "correlation_data is longer"},
	"user property a number":  {formWith(`"properties":{"user_properties":{"a":1}}`), "user property must be a string"},
	"user property twice":     {formWith(`"properties":{"user_properties":{"a":"1","a":"2"}}`), `"a" is given more than once`},
	"user property with NUL":  {formWith(`"properties":{"user_properties":{"a\u0000":"1"}}`), "user property contains U+0000"},
	"string does not end":     {`{"topic":"t`, "string does not end"},
	"string ends in escape":   {`{"topic":"t\`, "escape that JSON does not have"},
	"raw control character":   {"{\"topic\":\"a\nb\"}", "control character"},
	"control behind escape":   {"{\"topic\":\"\\n\nb\"}", "control character"},
	"unknown escape":          {`{"topic":"\x41"}`, "escape that JSON does not have"},
	"short hex escape":        {`{"topic":"\u12"}`, "escape that JSON does not have"},
	"bad hex escape":          {`{"topic":"\u12zz"}`, "escape that JSON does not have"},
	"lone high surrogate":     {`{"topic":"t","payload":"\ud83d"}`, "half of a surrogate pair"},
	"lone low surrogate":      {`{"topic":"t","payload":"\ude00"}`, "half of a surrogate pair"},
	"high and no low":         {`{"topic":"t","payload":"\ud83d\u0041"}`, "half of a surrogate pair"},
	"high and text":           {`{"topic":"t","payload":"\ud83dxxxxxx"}`, "half of a surrogate pair"},
}

func TestBadFormsAreRefused(t *testing.T) {
	for name, c := range badForms {
		t.Run(name, func(t *testing.T) {
			_, err := parsePublish([]byte(c.body), testTime)
			var f *failure
			require.ErrorAs(t, err, &f)
			require.Equal(t, http.StatusBadRequest, f.status)
			require.Contains(t, f.detail, c.detail)
		})
	}
}

func TestEveryTruncatedFormIsRefused(t *testing.T) {
	text := strings.TrimSpace(fullForm)
	for i := range len(text) {
		_, err := parsePublish([]byte(text[:i]), testTime)
		require.Error(t, err, text[:i])
		_, err = parseBulk([]byte("["+text+","+text[:i]), testTime)
		require.Error(t, err, text[:i])
	}
}

func TestBulk(t *testing.T) {
	one := `{"topic":"t","payload":"p"}`
	items, err := parseBulk([]byte("["+one+", "+fullForm+"]"), testTime)
	require.NoError(t, err)
	require.Len(t, items, 2)

	items, err = parseBulk([]byte("["+strings.Repeat(one+",", maxBulk-1)+one+"]"), testTime)
	require.NoError(t, err)
	require.Len(t, items, maxBulk)

	for body, detail := range map[string]string{
		"[" + strings.Repeat(one+",", maxBulk) + one + "]": "more than 1000 messages",
		"[]":              "no message in the array",
		one:               "body must be an array",
		"[" + one:         "expected ',' or ']'",
		"[" + one + "]]":  "something follows",
		"[" + one + ",]":  "message 1: message must be an object",
		"[" + one + ",1]": "message 1: message must be an object",
		"[" + one + `,{"topic":"bad/#","payload":""}]`: "message 1: topic name contains a wildcard",
	} {
		_, err := parseBulk([]byte(body), testTime)
		require.ErrorContains(t, err, detail)
	}
}

// What the strict reader takes, encoding/json reads the same way.
func FuzzParsePublish(f *testing.F) {
	f.Add([]byte(fullForm))
	f.Add([]byte(`{"topic":"t","payload":"AP8=","payload_encoding":"base64"}`))
	for _, c := range badForms {
		if len(c.body) < 1000 {
			f.Add([]byte(c.body))
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		it, err := parsePublish(body, testTime)
		if err != nil {
			var fl *failure
			require.ErrorAs(t, err, &fl, "an error must have an answer")
			require.Nil(t, it.message)
			return
		}
		var v struct {
			Topic, Payload string
			Encoding       string `json:"payload_encoding"`
			QoS            int
			Retain         bool
			ClientID       string
		}
		require.NoError(t, json.Unmarshal(body, &v))
		require.Equal(t, v.Topic, it.message.Topic)
		require.NoError(t, broker.ValidTopic(it.message.Topic))
		require.EqualValues(t, v.QoS, it.message.QoS)
		require.Equal(t, v.Retain, it.message.Retain)
		require.Equal(t, v.ClientID, it.clientID)
		if v.Encoding != "base64" {
			require.Equal(t, v.Payload, string(it.message.Payload))
		}
		items, err := parseBulk(fmt.Appendf(nil, "[%s]", body), testTime)
		require.NoError(t, err)
		require.Equal(t, it, items[0])
	})
}

// topicPath is the path of a topic, each level percent-encoded.
func topicPath(topic string) string {
	levels := strings.Split(topic, "/")
	for i, l := range levels {
		levels[i] = url.PathEscape(l)
	}
	return topicsPrefix + strings.Join(levels, "/")
}

func TestTopicFromPath(t *testing.T) {
	for path, want := range map[string]string{
		"a/b": "a/b", "/a": "/a", "a/": "a/", "//": "//", "a//b": "a//b", "a%2Fb": "a/b", "%2F": "/", "a%20b": "a b", "a+b%2B": "",
		"k%C3%A4fer": "käfer", "..": "..", "a/../b": "a/../b", ".": ".", "a%25b": "a%b", "": "", "a%00": "", "%FF": "", "a/%23": "", "a/%2B/c": "",
		"$SYS/x": "$SYS/x", "a;b=c": "a;b=c", "a:b@c": "a:b@c",
	} {
		got, err := topicOf(topicsPrefix + path)
		if want == "" {
			require.Error(t, err, path)
			continue
		}
		require.NoError(t, err, path)
		require.Equal(t, want, got)
	}
	_, err := topicOf(topicsPrefix + "a%zz")
	require.Error(t, err)
}

func FuzzTopicRoundTrip(f *testing.F) {
	for _, s := range []string{"a/b", "/", "//a//", "ä/%/?#", "..", "a b", "%2F"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, topic string) {
		if broker.ValidTopic(topic) != nil {
			return
		}
		u, err := url.Parse("http://x" + topicPath(topic))
		require.NoError(t, err)
		got, err := topicOf(u.EscapedPath())
		require.NoError(t, err)
		require.Equal(t, topic, got)
	})
}
