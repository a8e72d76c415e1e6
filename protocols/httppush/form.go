package httppush

import (
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"gantry/broker"
)

// maxBulk is how many messages one bulk request may hold.
const maxBulk = 1000

// maxString is the length of an MQTT string or of binary data [MQTT-1.5.4].
const maxString = 65535

// item is one message of the JSON form.
type item struct {
	clientID string // "" when not given
	message  *broker.Message
}

// parsePublish reads the body of /api/v5/publish.
func parsePublish(body []byte, now time.Time) (item, error) {
	r, err := newReader(body)
	if err != nil {
		return item{}, err
	}
	it, err := parseItem(r, now)
	if err == nil {
		err = r.end()
	}
	if err != nil {
		return item{}, err
	}
	return it, nil
}

// parseBulk reads the body of /api/v5/publish/bulk. Nothing of a batch with an
// error in it is published, as with EMQX.
func parseBulk(body []byte, now time.Time) ([]item, error) {
	r, err := newReader(body)
	if err != nil {
		return nil, err
	}
	var items []item
	err = r.array("body", func() error {
		if len(items) == maxBulk {
			return badRequest("more than %d messages in one request", maxBulk)
		}
		it, err := parseItem(r, now)
		if err != nil {
			return inMessage(len(items), err)
		}
		items = append(items, it)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(items) == 0 {
		return nil, badRequest("no message in the array")
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	return items, nil
}

// inMessage says which message of a batch has the error.
func inMessage(i int, err error) error {
	f, ok := errors.AsType[*failure](err)
	if !ok {
		return err
	}
	in := *f
	in.detail = "message " + strconv.Itoa(i) + ": " + f.detail
	return &in
}

// form collects the members of one message in any order.
type form struct {
	item
	payload              string
	hasTopic, hasPayload bool
	base64               bool
	expiry               int64
}

// parseItem reads one message. A member that the form does not have is an
// error, as it is for EMQX: a misspelt "retian" must not be a plain publish.
// null means that an optional member is absent.
func parseItem(r *reader, now time.Time) (item, error) {
	f := form{item: item{message: &broker.Message{Time: now.UnixMilli()}}}
	if err := r.object("message", func(name string) error { return f.member(r, name) }); err != nil {
		return item{}, err
	}
	m := f.message
	if !f.hasTopic {
		return item{}, badRequest("topic is missing")
	}
	if !f.hasPayload {
		return item{}, badRequest("payload is missing")
	}
	if err := checkTopic(m.Topic); err != nil {
		return item{}, err
	}
	m.Payload = []byte(f.payload)
	if f.base64 {
		var err error
		if m.Payload, err = base64.StdEncoding.Strict().DecodeString(f.payload); err != nil || strings.ContainsAny(f.payload, "\r\n") {
			return item{}, badRequest("payload is not valid base64")
		}
	}
	if p := m.Properties; p != nil && p.PayloadFormat == broker.FormatUTF8 && !utf8.Valid(m.Payload) {
		return item{}, refuse(broker.InvalidPayload, "payload_format_indicator is 1, but the payload is not UTF-8")
	}
	expireAfter(m, f.expiry)
	return f.item, nil
}

func (f *form) member(r *reader, name string) error {
	var err error
	switch m := f.message; name {
	case "topic":
		f.hasTopic = true
		m.Topic, err = r.str(name)
	case "payload":
		f.hasPayload = true
		f.payload, err = r.str(name)
	case "payload_encoding":
		err = optional(r, func() error { return f.encoding(r) })
	case "qos":
		err = optional(r, func() error {
			n, err := r.integer(name, 0, 2)
			m.QoS = broker.QoS(n)
			return err
		})
	case "retain":
		err = optional(r, func() (err error) { m.Retain, err = r.boolean(name); return err })
	case "clientid":
		err = optional(r, func() error { return f.client(r) })
	case "properties":
		err = optional(r, func() error {
			m.Properties = &broker.Properties{}
			return r.object(name, func(name string) error {
				return optional(r, func() error { return f.property(r, name) })
			})
		})
	default:
		err = badRequest("unknown member %q", name)
	}
	return err
}

// optional skips a null.
func optional(r *reader, read func() error) error {
	if r.literal("null") {
		return nil
	}
	return read()
}

func (f *form) encoding(r *reader) error {
	s, err := r.str("payload_encoding")
	if err != nil {
		return err
	}
	if s != "plain" && s != "base64" {
		return badRequest("payload_encoding must be plain or base64")
	}
	f.base64 = s == "base64"
	return nil
}

func (f *form) client(r *reader) (err error) {
	f.clientID, err = r.str("clientid")
	if err == nil && f.clientID == "" {
		return badRequest("clientid is empty")
	}
	return err
}

func (f *form) property(r *reader, name string) (err error) {
	p := f.message.Properties
	switch name {
	case "payload_format_indicator":
		var n int64
		n, err = r.integer(name, 0, 1)
		p.PayloadFormat = broker.FormatBytes + broker.PayloadFormat(n)
	case "message_expiry_interval":
		f.expiry, err = r.integer(name, 1, maxExpiry)
	case "response_topic":
		if p.ResponseTopic, err = r.str(name); err == nil {
			if broker.ValidTopic(p.ResponseTopic) != nil {
				return badRequest("response_topic is not a valid topic name")
			}
		}
	case "correlation_data":
		var s string
		if s, err = r.str(name); len(s) > maxString {
			return badRequest("correlation_data is longer than %d bytes", maxString)
		}
		p.CorrelationData = []byte(s)
	case "content_type":
		if p.ContentType, err = r.str(name); err == nil {
			p.EmptyContentType = p.ContentType == ""
			err = checkText(name, p.ContentType)
		}
	case "user_properties":
		err = r.object(name, func(key string) error { return f.userProperty(r, key) })
	default:
		err = badRequest("unknown member %q in properties", name)
	}
	return err
}

func (f *form) userProperty(r *reader, key string) error {
	value, err := r.str("user property")
	if err != nil {
		return err
	}
	if err := checkText("user property", key); err != nil {
		return err
	}
	if err := checkText("user property", value); err != nil {
		return err
	}
	p := f.message.Properties
	p.User = append(p.User, broker.UserProperty{Key: key, Value: value})
	return nil
}

// checkText checks what becomes an MQTT string; that it is UTF-8 is known.
func checkText(what, s string) error {
	if len(s) > maxString {
		return badRequest("%s is longer than %d bytes", what, maxString)
	}
	if strings.IndexByte(s, 0) >= 0 {
		return badRequest("%s contains U+0000", what)
	}
	return nil
}
