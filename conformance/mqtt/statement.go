package mqtt

// Version is a version of MQTT.
type Version string

// The versions.
const (
	MQTT311 Version = "3.1.1"
	MQTT5   Version = "5.0"
)

func (v Version) level() byte {
	if v == MQTT5 {
		return v5
	}
	return v311
}

// Transport is what MQTT runs over.
type Transport string

// The transports. Each is the scheme of addresses.
const (
	TCP             Transport = schemeTCP
	TLS             Transport = schemeTLS
	WebSocket       Transport = schemeWS
	SecureWebSocket Transport = schemeWSS
	Unix            Transport = schemeUnix
	QUIC            Transport = schemeQUIC
)

// Transports are those over which Gantry is held to the statements.
var Transports = []Transport{TCP, TLS, WebSocket, SecureWebSocket, Unix, QUIC}

// name is the transport in prose.
func (t Transport) name() string {
	return map[Transport]string{
		TCP: "TCP", TLS: "TLS", WebSocket: "WebSocket", SecureWebSocket: "WebSocket over TLS", Unix: "Unix socket",
		QUIC: "QUIC",
	}[t]
}

// Party is whom a statement binds.
type Party uint8

// The parties.
const (
	Server Party = iota
	Client
	Both
)

// String returns the word that the document uses.
func (p Party) String() string { return [...]string{"server", "client", "both"}[p] }

// Statement is one normative statement of a version.
type Statement struct {
	Version Version
	// ID is the number without the prefix: 3.1.2-1 for [MQTT-3.1.2-1].
	ID  string
	Who Party
	// Text says what it demands, in short.
	Text string
	// Elsewhere says where it is held, or why it is not, when there is no check.
	Elsewhere string

	check func(*C)
}

// Checked reports whether the suite has a check for the statement.
func (s *Statement) Checked() bool { return s.check != nil }

// Statements returns all statements of a version, in the order of the standard.
func Statements(v Version) []Statement {
	var all []Statement
	for _, chapter := range chapters[v] {
		for _, row := range chapter {
			all = append(all, Statement{Version: v, ID: row.id, Who: row.who, Text: row.text, Elsewhere: row.elsewhere, check: row.check})
		}
	}
	return all
}

var chapters = map[Version][][]row{
	MQTT5:   {format5, connect5, publish5, subscribe5, disconnect5, operation5, websocket5},
	MQTT311: {format311, connect311, publish311, subscribe311, operation311},
}

// row is a statement in one of the tables. Either check or elsewhere is set.
type row struct {
	id        string
	who       Party
	text      string
	check     func(*C)
	elsewhere string
}

const onlyClient = "binds only the client"
