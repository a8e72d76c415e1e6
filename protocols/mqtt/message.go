package mqtt

import "gantry/broker"

// A message with its payload behind it is one allocation instead of two. The
// sizes fill allocator classes of 192 and 256 bytes.
type (
	message72 struct {
		broker.Message
		payload [72]byte
	}
	message136 struct {
		broker.Message
		payload [136]byte
	}
)

// newMessage returns a message with a copy of the payload.
func newMessage(payload []byte) *broker.Message {
	switch n := len(payload); {
	case n <= 72:
		m := &message72{}
		copy(m.payload[:], payload)
		m.Payload = m.payload[:n:n]
		return &m.Message
	case n <= 136:
		m := &message136{}
		copy(m.payload[:], payload)
		m.Payload = m.payload[:n:n]
		return &m.Message
	}
	m := &broker.Message{Payload: make([]byte, len(payload))}
	copy(m.Payload, payload)
	return m
}
