package bridge

import (
	"encoding/base64"
	"strconv"
	"unicode/utf8"

	"gantry/broker"
)

// appendEnvelope appends the JSON object that the Kafka plugin of EMQ sends for
// a published message:
//
//	{"type":"public","client_id":"c1","message":{"username":"u","topic":"a/b","payload":"21.5",
//	 "qos":1,"dup":0,"retain":0},"cluster_node":"edge-01","ts":1700000000000}
//
// "public" is the word that consumers of that plugin look for. A payload that
// is not UTF-8, which the plugin would break, is sent in base64 with
// "payload_encoding":"base64" behind it. The same message always gives the same
// bytes.
func appendEnvelope(dst []byte, m *broker.Message, node string) []byte {
	dst = append(dst, `{"type":"public","client_id":`...)
	dst = appendJSONString(dst, m.ClientID)
	dst = append(dst, `,"message":{"username":`...)
	dst = appendJSONString(dst, m.Username)
	dst = append(dst, `,"topic":`...)
	dst = appendJSONString(dst, m.Topic)
	dst = append(dst, `,"payload":`...)
	if utf8.Valid(m.Payload) {
		dst = appendJSONString(dst, m.Payload)
	} else {
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, m.Payload)
		dst = append(dst, `","payload_encoding":"base64"`...)
	}
	dst = append(dst, `,"qos":`...)
	dst = append(dst, '0'+byte(m.QoS), ',')
	dst = append(dst, `"dup":0,"retain":`...)
	if m.Retain {
		dst = append(dst, '1')
	} else {
		dst = append(dst, '0')
	}
	dst = append(dst, `},"cluster_node":`...)
	dst = appendJSONString(dst, node)
	dst = append(dst, `,"ts":`...)
	dst = strconv.AppendInt(dst, m.Time, 10)
	return append(dst, '}')
}

const hexDigits = "0123456789abcdef"

// appendJSONString appends s as a JSON string. Bytes that are not UTF-8 become
// the replacement character.
func appendJSONString[T string | []byte](dst []byte, s T) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(string(s[i:min(len(s), i+utf8.UTFMax)]))
			if r != utf8.RuneError || size != 1 {
				i += size
				continue
			}
			dst = append(dst, s[start:i]...)
			dst = append(dst, "\ufffd"...)
			i++
			start = i
			continue
		}
		dst = append(dst, s[start:i]...)
		dst = appendEscaped(dst, c)
		i++
		start = i
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

func appendEscaped(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	return append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
}
