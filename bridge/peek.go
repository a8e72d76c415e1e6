package bridge

import (
	"time"
	"unicode"
	"unicode/utf8"
)

// previewBytes is how much of a payload Peek shows.
const previewBytes = 256

// Preview is a queued record for human eyes.
type Preview struct {
	Seq       uint64            `json:"seq"`
	Target    string            `json:"target"` // topic at the other side
	Key       string            `json:"key,omitempty"`
	Headers   map[string]string `json:"headers,omitempty"`
	Topic     string            `json:"topic"` // topic at the broker
	ClientID  string            `json:"clientid"`
	QoS       int               `json:"qos"`
	Time      time.Time         `json:"time"`
	Size      int               `json:"size"`    // bytes of the value
	Payload   string            `json:"payload"` // its beginning; what is not printable is a dot
	Truncated bool              `json:"truncated,omitempty"`
	Error     string            `json:"error,omitempty"` // why the record cannot be read
}

// Peek describes a record of a queue. It takes any bytes.
func Peek(seq uint64, rec []byte) Preview {
	var r Record
	if err := r.Decode(rec); err != nil {
		return Preview{Seq: seq, Size: len(rec), Payload: printable(rec[:min(len(rec), previewBytes)]), Error: err.Error()}
	}
	p := Preview{
		Seq: seq, Target: string(r.Topic), Key: printable(r.Key), QoS: int(r.QoS), Time: time.UnixMilli(r.Time).UTC(),
		Size: len(r.Value), Payload: printable(r.Value[:min(len(r.Value), previewBytes)]), Truncated: len(r.Value) > previewBytes,
	}
	for _, h := range r.Headers {
		if p.Headers == nil {
			p.Headers = map[string]string{}
		}
		p.Headers[string(h.Name)] = printable(h.Value)
	}
	m, err := r.Message()
	if err != nil {
		p.Error = err.Error()
		return p
	}
	p.Topic, p.ClientID = m.Topic, m.ClientID
	return p
}

// printable returns b as text, with a dot for every byte or rune that is not.
func printable(b []byte) string {
	text := make([]byte, 0, len(b))
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		if r == utf8.RuneError && size <= 1 || !unicode.IsPrint(r) && r != '\n' && r != '\t' {
			text = append(text, '.')
		} else {
			text = append(text, b[:size]...)
		}
		b = b[size:]
	}
	return string(text)
}
