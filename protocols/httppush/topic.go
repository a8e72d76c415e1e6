package httppush

import (
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"gantry/broker"
)

const topicsPrefix = "/v1/topics/"

// maxExpiry is the largest Message Expiry Interval in seconds.
const maxExpiry = math.MaxUint32

// topicOf takes the topic from the path as it was sent. Each segment is a
// level, percent-decoded, and empty ones count: /v1/topics//a/ is "/a/". "%2F"
// is a level separator like "/", so a client may encode the topic as one
// segment.
func topicOf(escapedPath string) (string, error) {
	topic, err := url.PathUnescape(strings.TrimPrefix(escapedPath, topicsPrefix))
	if err != nil {
		return "", badRequest("path is not well formed")
	}
	return topic, checkTopic(topic)
}

func checkTopic(topic string) error {
	if err := broker.ValidTopic(topic); err != nil {
		return refuse(broker.InvalidTopic, "%s", err)
	}
	return nil
}

// options are the query of a raw publish.
type options struct {
	qos    broker.QoS
	retain bool
	expiry int64 // seconds, 0 = none
}

// parseOptions is strict: a misspelt or repeated parameter is an error.
func parseOptions(r *http.Request) (options, error) {
	o := options{qos: 1}
	q, err := parseQuery(r, "qos", "retain", "expiry")
	if err != nil {
		return o, err
	}
	if q.Has("qos") {
		switch v := q.Get("qos"); v {
		case "0", "1", "2":
			o.qos = broker.QoS(v[0] - '0')
		default:
			return o, badRequest("qos must be 0, 1 or 2")
		}
	}
	if q.Has("retain") {
		switch q.Get("retain") {
		case "true", "1":
			o.retain = true
		case "false", "0":
		default:
			return o, badRequest("retain must be true or false")
		}
	}
	if q.Has("expiry") {
		n, err := strconv.ParseUint(q.Get("expiry"), 10, 32)
		if err != nil || n == 0 {
			return o, badRequest("expiry must be a whole number of seconds from 1 to %d", int64(maxExpiry))
		}
		o.expiry = int64(n)
	}
	return o, nil
}

func parseQuery(r *http.Request, known ...string) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, badRequest("query is not well formed")
	}
	for name, values := range q {
		if !slices.Contains(known, name) {
			return nil, badRequest("unknown parameter %q", name)
		}
		if len(values) > 1 {
			return nil, badRequest("parameter %q is given more than once", name)
		}
	}
	return q, nil
}

// expireAfter sets when a message that has its Time expires; 0 = never.
func expireAfter(m *broker.Message, seconds int64) {
	if seconds > 0 {
		m.Expires = m.Time + seconds*1000
	}
}
