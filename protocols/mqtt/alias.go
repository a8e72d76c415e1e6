package mqtt

import (
	"errors"

	"gantry/broker"
	"gantry/protocols/mqtt/wire"
)

var (
	errAliasRange   = error(&broker.Error{Reason: broker.InvalidAlias, Err: errors.New("topic alias is above the maximum")})
	errAliasUnknown = error(&broker.Error{Reason: broker.ProtocolError, Err: errors.New("topic alias was not defined")})
)

// inTopics turns the topic of a PUBLISH into a string, without allocating for
// a topic that came last or under an alias. Owned by the reader.
type inTopics struct {
	last    string
	aliases []string // by alias - 1
}

func (t *inTopics) resolve(p *wire.Publish, maxAlias int) (string, error) {
	if int(p.Alias) > maxAlias {
		return "", errAliasRange // [MQTT-3.3.2-9]
	}
	if len(p.Topic) == 0 {
		if int(p.Alias) > len(t.aliases) || t.aliases[p.Alias-1] == "" {
			return "", errAliasUnknown
		}
		return t.aliases[p.Alias-1], nil
	}
	if string(p.Topic) != t.last {
		t.last = string(p.Topic)
	}
	if p.Alias > 0 {
		for len(t.aliases) < int(p.Alias) {
			t.aliases = append(t.aliases, "")
		}
		t.aliases[p.Alias-1] = t.last
	}
	return t.last, nil
}

// minAliasTopic is the shortest topic that is worth an alias: below it the
// alias itself, three bytes, and a longer property length save nothing.
const minAliasTopic = 8

// outAliases gives the first topics of a connection a topic alias, as far as
// the client allows [MQTT-3.1.2-26]. Owned by the writer.
type outAliases struct {
	max   int
	known map[string]uint16
}

// apply uses an alias for a measured message, or defines one if the packet,
// longer by that, still fits the client's limit (0 = none).
func (a *outAliases) apply(out *wire.Outgoing, maxPacket int) {
	topic := out.TopicName()
	if a.max == 0 || len(topic) < minAliasTopic {
		return
	}
	if id, ok := a.known[topic]; ok {
		out.Alias, out.OmitTopic = id, true
		out.Measure()
		return
	}
	if len(a.known) == a.max {
		return
	}
	out.Alias = uint16(len(a.known) + 1)
	if size := out.Measure(); size == wire.TooLong || maxPacket != 0 && size > maxPacket {
		out.Alias = 0
		out.Measure()
		return
	}
	if a.known == nil {
		a.known = make(map[string]uint16)
	}
	a.known[topic] = out.Alias
}
