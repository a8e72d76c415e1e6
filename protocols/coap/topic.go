package coap

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"gantry/broker"
)

// Limits of a topic that comes by CoAP. A datagram holds little more, and
// devices with such addresses are better served by another protocol.
const (
	maxTopicBytes  = 1024
	maxTopicLevels = 64
)

var errTopicSize = fmt.Errorf("topic is longer than %d bytes or %d levels", maxTopicBytes, maxTopicLevels)

// topicName is the topic of a publish or read: the Uri-Path values behind the
// collection's, joined with '/'.
func topicName(segments [][]byte) (string, error) {
	topic, err := joinTopic(segments)
	if err != nil {
		return "", err
	}
	return topic, broker.ValidTopic(topic)
}

// topicFilter is the filter of an observation.
func topicFilter(segments [][]byte) (string, error) {
	filter, err := joinTopic(segments)
	if err != nil {
		return "", err
	}
	return filter, broker.ValidFilter(filter)
}

// joinTopic joins the raw option values, so that empty levels survive, and
// then decodes percent signs once more: clients that do not decode their URI,
// and those of EMQX that encode twice, mean the same topic. A decoded '/' is a
// level separator.
func joinTopic(segments [][]byte) (string, error) {
	if len(segments) == 0 {
		return "", errors.New("topic is empty")
	}
	size := len(segments) - 1
	for _, s := range segments {
		size += len(s)
	}
	var b strings.Builder
	b.Grow(size)
	for i, s := range segments {
		if i > 0 {
			b.WriteByte('/')
		}
		b.Write(s)
	}
	topic := percentDecode(b.String())
	if len(topic) > maxTopicBytes || strings.Count(topic, "/") >= maxTopicLevels {
		return "", errTopicSize
	}
	return topic, nil
}

// percentDecode decodes s if every '%' in it begins a valid triplet, and
// returns it unchanged otherwise: then the percent signs are meant.
func percentDecode(s string) string {
	first := strings.IndexByte(s, '%')
	if first < 0 {
		return s
	}
	out := make([]byte, first, len(s))
	copy(out, s)
	for i := first; i < len(s); i++ {
		if s[i] != '%' {
			out = append(out, s[i])
			continue
		}
		if i+2 >= len(s) {
			return s
		}
		hi, lo := unhex(s[i+1]), unhex(s[i+2])
		if hi < 0 || lo < 0 {
			return s
		}
		out = append(out, byte(hi<<4|lo))
		i += 2
	}
	return string(out)
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c - 'a' + 10)
	case 'A' <= c && c <= 'F':
		return int(c - 'A' + 10)
	}
	return -1
}

// hasWildcard reports whether a valid filter is not a topic name.
func hasWildcard(filter string) bool {
	return strings.ContainsAny(filter, "+#") || broker.IsShared(filter)
}

func isPath(path [][]byte, want ...string) bool {
	if len(path) != len(want) {
		return false
	}
	for i, w := range want {
		if !bytes.Equal(path[i], []byte(w)) {
			return false
		}
	}
	return true
}
