package broker

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Limits of topic names and filters. The length is that of an MQTT string
// [MQTT-1.5.4]; the level limit bounds the work of one match.
const (
	MaxTopicBytes  = 65535
	MaxTopicLevels = 128
)

var (
	errEmptyTopic  = errors.New("topic is empty")
	errTopicUTF8   = errors.New("topic is not valid UTF-8")
	errTopicNUL    = errors.New("topic contains U+0000")
	errTopicWild   = errors.New("topic name contains a wildcard")
	errFilterHash  = errors.New("# must be the whole last level of a filter")
	errFilterPlus  = errors.New("+ must be a whole level of a filter")
	errFilterShare = errors.New("shared subscription needs $share/{group}/{filter} with a group without wildcards")
	errFilterMixed = errors.New("$share, $queue and $exclusive need a plain filter behind them")
)

// ValidTopic checks a topic name that a message is published to: 1 to 65,535
// bytes of UTF-8, no U+0000, no wildcard, at most MaxTopicLevels levels
// [MQTT-3.3.2-1, MQTT-3.3.2-2, MQTT-4.7.3-1, MQTT-4.7.3-2].
func ValidTopic(s string) error {
	if err := validText(s); err != nil {
		return err
	}
	if strings.IndexByte(s, '+') >= 0 || strings.IndexByte(s, '#') >= 0 {
		return errTopicWild
	}
	return nil
}

// ValidFilter checks a topic filter, with the syntax of shared subscriptions
// and of their short form $queue/{filter} [MQTT-4.7.1-1, MQTT-4.7.1-2, MQTT-4.8.2-1, MQTT-4.8.2-2],
// and of exclusive ones, $exclusive/{filter}.
func ValidFilter(s string) error {
	if err := validText(s); err != nil {
		return err
	}
	s = canonicalFilter(s)
	if strings.HasPrefix(s, sharePrefix) || s == "$share" {
		group, filter, ok := strings.Cut(strings.TrimPrefix(s, sharePrefix), "/")
		if !ok || s == "$share" || group == "" || filter == "" || strings.ContainsAny(group, "+#") {
			return errFilterShare
		}
		if IsExclusive(filter) {
			return errFilterMixed
		}
		s = filter
	}
	if filter, exclusive := strings.CutPrefix(s, exclusivePrefix); exclusive || s == "$exclusive" {
		if !exclusive || filter == "" || extended(filter) {
			return errFilterMixed
		}
		s = filter
	}
	for rest, more := s, true; more; {
		var level string
		level, rest, more = strings.Cut(rest, "/")
		if strings.Contains(level, "#") && (level != "#" || more) {
			return errFilterHash
		}
		if strings.Contains(level, "+") && level != "+" {
			return errFilterPlus
		}
	}
	return nil
}

func validText(s string) error {
	switch {
	case s == "":
		return errEmptyTopic
	case len(s) > MaxTopicBytes:
		return fmt.Errorf("topic has %d bytes, the limit is %d", len(s), MaxTopicBytes)
	case strings.Count(s, "/") >= MaxTopicLevels:
		return fmt.Errorf("topic has %d levels, the limit is %d", strings.Count(s, "/")+1, MaxTopicLevels)
	case strings.IndexByte(s, 0) >= 0:
		return errTopicNUL
	case !utf8.ValidString(s):
		return errTopicUTF8
	}
	return nil
}

// MatchFilter reports whether a valid filter matches a valid topic name. A
// leading wildcard matches no topic that begins with $ [MQTT-4.7.2-1], and
// a/# matches a [MQTT-4.7.1-2].
func MatchFilter(filter, topic string) bool {
	if strings.HasPrefix(topic, "$") && (strings.HasPrefix(filter, "+") || strings.HasPrefix(filter, "#")) {
		return false
	}
	for {
		fl, frest, fmore := strings.Cut(filter, "/")
		if fl == "#" {
			return true
		}
		tl, trest, tmore := strings.Cut(topic, "/")
		if fl != "+" && fl != tl {
			return false
		}
		if !tmore {
			return !fmore || frest == "#"
		}
		if !fmore {
			return false
		}
		filter, topic = frest, trest
	}
}
