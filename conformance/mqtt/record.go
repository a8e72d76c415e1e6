package mqtt

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
	Gantry:    {MQTT5: gantry5, MQTT311: gantry311},
	Mosquitto: {MQTT5: mosquitto5, MQTT311: mosquitto311},
}

var (
	gantry5      = map[string]Verdict{}
	gantry311    = map[string]Verdict{}
	mosquitto5   = map[string]Verdict{}
	mosquitto311 = map[string]Verdict{}
)
