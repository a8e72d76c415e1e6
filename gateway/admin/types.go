package admin

import "time"

// Status is the answer of GET /api/v1/status.
type Status struct {
	Version       string         `json:"version"`
	Node          string         `json:"node"`
	StartedAt     time.Time      `json:"started_at"`
	UptimeSeconds int64          `json:"uptime_seconds"`
	Connections   map[string]int `json:"connections"` // open ones by protocol: mqtt, coap, http
	Listeners     []Listener     `json:"listeners"`
	Sessions      int            `json:"sessions"` // with and without a connection
	Subscriptions int            `json:"subscriptions"`
	Retained      int            `json:"retained"`
	Delayed       int            `json:"delayed"` // messages that wait to be published later
	Messages      MessageCounts  `json:"messages"`
	Store         StoreStatus    `json:"store"`
	Alarms        []Alarm        `json:"alarms"`  // filled by this package
	Process       Process        `json:"process"` // filled by this package
}

// Listener is an address where clients connect.
type Listener struct {
	Name      string `json:"name"`
	Protocol  string `json:"protocol"`  // mqtt, coap, http
	Transport string `json:"transport"` // tcp, tls, ws, wss, unix, quic, udp, …
	Address   string `json:"address"`
	Clients   int    `json:"clients"` // sessions with a connection
	// Connections are the open ones, those included that have no session, of
	// at most MaxConnections. Absent where the transport has none.
	Connections    *int `json:"connections,omitempty"`
	MaxConnections int  `json:"max_connections,omitempty"`
}

// MessageCounts are totals since the start of the process.
type MessageCounts struct {
	In      uint64            `json:"in"`      // accepted from publishers
	Out     uint64            `json:"out"`     // handed to subscribers
	Dropped map[string]uint64 `json:"dropped"` // by reason
}

// StoreStatus is the state of the session store.
type StoreStatus struct {
	Type     string `json:"type"`
	Writable bool   `json:"writable"`
	Detail   string `json:"detail,omitempty"` // why it is not writable, or what it does about an outage
}

// Process is what the process itself uses.
type Process struct {
	MemoryBytes uint64 `json:"memory_bytes"` // obtained from the operating system and not given back
	Goroutines  int    `json:"goroutines"`
}

// Alarm is a condition that needs an operator.
type Alarm struct {
	Name   string    `json:"name"`
	Since  time.Time `json:"since"`
	Detail string    `json:"detail"`
}

// The states of a bridge.
const (
	BridgeConnected  = "connected"   // sends what arrives
	BridgeCatchingUp = "catching_up" // connected, works through a backlog
	BridgeRetrying   = "retrying"    // the receiver is away or refuses for now
	BridgePaused     = "paused"      // by the operator
	BridgeFailed     = "failed"      // stopped by an error that a retry does not cure
)

// Bridge is one entry of GET /api/v1/bridges.
type Bridge struct {
	Name  string `json:"name"`
	Type  string `json:"type"` // kafka, mqtt
	State string `json:"state"`

	QueuedRecords    uint64  `json:"queued_records"`
	QueuedBytes      int64   `json:"queued_bytes"`
	MaxBytes         int64   `json:"max_bytes"`
	WhenFull         string  `json:"when_full"`          // drop_oldest, refuse, block
	OldestAgeSeconds float64 `json:"oldest_age_seconds"` // 0 when the queue is empty

	Delivered     uint64            `json:"delivered"`
	RatePerSecond float64           `json:"rate_per_second"` // deliveries, recent average
	Dropped       map[string]uint64 `json:"dropped"`         // by reason
	Refused       uint64            `json:"refused"`         // publishers that were told to keep their message
	DeadLetters   uint64            `json:"dead_letters"`

	LastError   string     `json:"last_error,omitempty"`
	LastErrorAt *time.Time `json:"last_error_at,omitempty"`
	// OldestUnconfirmedSeconds is the age of the oldest send that the receiver
	// has not confirmed: it grows when a connection is up but dead.
	OldestUnconfirmedSeconds float64 `json:"oldest_unconfirmed_seconds"`
}

// Encodings of a payload preview.
const (
	EncodingUTF8   = "utf8"
	EncodingBase64 = "base64"
)

// Record is one entry of GET /api/v1/bridges/{name}/peek.
type Record struct {
	Seq       uint64    `json:"seq"`
	Time      time.Time `json:"time"`
	Topic     string    `json:"topic"`
	Key       string    `json:"key,omitempty"`
	Size      int       `json:"size"`     // bytes of the whole payload
	Payload   string    `json:"payload"`  // the first bytes of it, in Encoding
	Encoding  string    `json:"encoding"` // utf8 or base64
	Truncated bool      `json:"truncated"`
	Reason    string    `json:"reason,omitempty"` // why a dead letter is one
}

// QueuedRecord is a queued record as the gateway hands it in; the API shows it
// as a [Record].
type QueuedRecord struct {
	Seq     uint64
	Time    time.Time
	Topic   string
	Key     string
	Payload []byte
	Reason  string
}

// Session is one entry of GET /api/v1/clients.
type Session struct {
	ClientID      string     `json:"client_id"`
	Username      string     `json:"username,omitempty"`
	Protocol      string     `json:"protocol"`
	Version       string     `json:"version,omitempty"`
	Listener      string     `json:"listener,omitempty"`
	RemoteAddr    string     `json:"remote_addr,omitempty"`
	Connected     bool       `json:"connected"`
	ConnectedAt   *time.Time `json:"connected_at,omitempty"`
	ExpirySeconds int64      `json:"expiry_seconds"` // -1 = never
	Subscriptions int        `json:"subscriptions"`
	Queued        int        `json:"queued"`
	Inflight      int        `json:"inflight"`
}

// SessionPage is the answer of GET /api/v1/clients.
type SessionPage struct {
	Clients []Session `json:"clients"`        // by client id
	Next    string    `json:"next,omitempty"` // the value of after= for the next page
}

// Readiness is the answer of GET /readyz.
type Readiness struct {
	Ready    bool     `json:"ready"`
	Problems []string `json:"problems,omitempty"`
}

// Problem is the body of every error answer (RFC 9457).
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
}
