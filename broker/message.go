package broker

// QoS is a quality of service level: 0, 1 or 2.
type QoS uint8

// PayloadFormat is the Payload Format Indicator of a message [MQTT-3.3.2-4].
type PayloadFormat uint8

// The payload format as the publisher declared it. The difference between
// absent and bytes is kept because a server forwards the property unaltered.
const (
	FormatAbsent PayloadFormat = iota
	FormatBytes                // property value 0x00
	FormatUTF8                 // property value 0x01
)

// UserProperty is one name-value pair; names may repeat and order is kept.
type UserProperty struct{ Key, Value string }

// Properties are the parts of a message that only some protocols can express.
type Properties struct {
	PayloadFormat PayloadFormat
	// EmptyContentType and EmptyResponseTopic say that the text below is there
	// although it has no characters: like any other it is forwarded unaltered
	// [MQTT-3.3.2-15, MQTT-3.3.2-20].
	EmptyContentType   bool
	EmptyResponseTopic bool

	ContentType     string
	ResponseTopic   string
	CorrelationData []byte
	User            []UserProperty
}

// HasContentType reports whether there is a content type, be it empty.
func (p *Properties) HasContentType() bool { return p.ContentType != "" || p.EmptyContentType }

// HasResponseTopic reports whether there is a response topic, be it empty.
func (p *Properties) HasResponseTopic() bool { return p.ResponseTopic != "" || p.EmptyResponseTopic }

// Message is one application message. It is immutable from the moment it is
// given to Publish: all receivers, queues and hooks share the same value and
// the same payload slice.
type Message struct {
	Topic      string
	Payload    []byte
	QoS        QoS
	Retain     bool
	Properties *Properties // nil when there are none

	// Of the publisher; filled by Publish.
	ClientID string
	Username string
	Protocol string // "mqtt", "coap" or "http"

	Time    int64 // Unix milliseconds of acceptance; filled by Publish when 0
	Expires int64 // Unix milliseconds after which it must not be delivered; 0 = never
}

// Expired reports whether the message must no longer be delivered at the given
// time in Unix milliseconds.
func (m *Message) Expired(now int64) bool { return m.Expires != 0 && now >= m.Expires }

// entryOverhead is what a queued message costs beside topic and payload:
// the queue entry, the message header and allocator slack.
const entryOverhead = 160

// size is what the message counts against a byte cap.
func (m *Message) size() int { return len(m.Topic) + len(m.Payload) + entryOverhead }
