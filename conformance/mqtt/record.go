package mqtt

import "maps"

// Broker is a server whose verdicts are recorded.
type Broker string

// The brokers.
const (
	Gantry    Broker = "Gantry"
	Mosquitto Broker = "mosquitto 2.0.11"
)

// Recorded returns what a broker is known to do about a statement that has a
// check. What is not in the table holds.
func Recorded(b Broker, s *Statement) Verdict { return recorded[b][s.Version][s.ID] }

var recorded = map[Broker]map[Version]map[string]Verdict{
	Gantry: {
		MQTT5: each(NotOffered, "no authentication method: refused with 0x8C; protocols/mqtt/auth_test.go shows that it is kept with one", exchanges...),
	},
	Mosquitto: {MQTT5: mosquitto5, MQTT311: mosquitto311},
}

// exchanges is what an authentication exchange demands; it cannot be seen where
// every method is refused.
var exchanges = []string{"3.15.2-1", "3.15.2-2", "3.15.2-3", "4.12.0-2", "4.12.0-4", "4.12.0-5"}

var mosquitto5 = merged(
	each(NotOffered, "no authentication method: refused with 0x8C", exchanges...),
	each(NotJudged, "it announces no Maximum Packet Size", "3.2.2-15"),
	each(Deviates, "some wrong flags are ignored, those of PINGREQ and PUBACK among them", "2.1.3-1"),
	each(Deviates, "a message that is too large keeps its place in the client's window", "3.1.2-25"),
	each(Deviates, "authentication data without method are accepted", "3.1.4-1"),
	each(Deviates, "the old connection is closed without DISCONNECT", "3.1.4-3"),
	each(Deviates, "a response topic with wildcards is accepted", "3.3.2-14"),
	each(Deviates, "a subscription identifier from a client is accepted", "3.3.4-6"),
	each(Deviates, "a client that exceeds the Receive Maximum is not disconnected", "3.3.4-7"),
	each(Deviates, "an acknowledgement makes room for two messages", "3.3.4-9", "4.9.0-1", "4.9.0-2"),
	each(Deviates, "No Local on a shared subscription is accepted", "3.8.3-4"),
	each(Deviates, "a message that was sent is not completed when its expiry is over", "4.3.3-7"),
	each(Deviates, "the second duplicate of a QoS 2 message ends the connection", "4.3.3-10"),
	each(Deviates, "an empty share name is accepted", "4.8.2-1"),
	each(Deviates, "a share name with wildcards is accepted", "4.8.2-2"),
	each(Deviates, "some packets that only a server sends, or that have a body too many, are ignored", "4.13.1-1"),
	each(Deviates, "text frames are accepted", "6.0.0-1"),
)

var mosquitto311 = merged(
	each(Deviates, "some wrong flags are ignored, those of PINGREQ and PUBACK among them", "2.2.2-1", "2.2.2-2"),
	each(Deviates, "of two subscriptions the one that is found first counts", "3.3.5-1"),
	each(Deviates, "the second duplicate of a QoS 2 message ends the connection", "4.3.3-2"),
	each(Deviates, "some packets that only a server sends, or that have a body too many, are ignored", "4.8.0-1"),
	each(Deviates, "text frames are accepted", "6.0.0-1"),
)

// each records the same verdict for several statements.
func each(r Result, detail string, ids ...string) map[string]Verdict {
	all := map[string]Verdict{}
	for _, id := range ids {
		all[id] = Verdict{r, detail}
	}
	return all
}

func merged(parts ...map[string]Verdict) map[string]Verdict {
	all := map[string]Verdict{}
	for _, part := range parts {
		maps.Copy(all, part)
	}
	return all
}
