package config

import (
	"os"
	"path/filepath"
	"time"
)

// Config is a whole configuration file. A value from [Load] or [Default] is complete: every setting without a value in the file has its default.
type Config struct {
	Node      string    `yaml:"node"`     // name of this gateway; empty = host name, see [Config.NodeName]
	DataDir   string    `yaml:"data_dir"` // relative to the working directory
	Log       Log       `yaml:"log"`
	Listeners Listeners `yaml:"listeners"`
	Auth      Auth      `yaml:"auth"`
	Broker    Broker    `yaml:"broker"`
	Store     Store     `yaml:"store"`
	Bridges   []Bridge  `yaml:"bridges"`
	Admin     Admin     `yaml:"admin"`
}

// Log says what is logged to standard error, and how.
type Log struct {
	Level  LogLevel  `yaml:"level"`
	Format LogFormat `yaml:"format"`
}

// Listeners are the addresses where clients connect. A file that has the key listeners opens exactly those that it names.
type Listeners struct {
	MQTT []MQTT `yaml:"mqtt"`
	CoAP []CoAP `yaml:"coap"`
	HTTP []HTTP `yaml:"http"`
}

// MQTT is one listener for MQTT 3.1, 3.1.1 and 5.0.
type MQTT struct {
	Name           string         `yaml:"name"`
	Bind           Addr           `yaml:"bind"`
	Transport      MQTTTransport  `yaml:"transport"`
	Path           string         `yaml:"path"`            // of WebSockets; empty = /mqtt, see [MQTT.WebSocketPath]
	Origins        []string       `yaml:"origins"`         // origins whose pages may open a WebSocket, beside the listener's own address
	TLS            *ServerTLS     `yaml:"tls"`             // nil = no TLS, which QUIC cannot do without
	MultiStream    bool           `yaml:"multi_stream"`    // of QUIC: clients may open data streams beside the first one
	ProxyProtocol  *ProxyProtocol `yaml:"proxy_protocol"`  // nil = clients connect themselves
	MaxConnections int            `yaml:"max_connections"` // more are closed at once
	ReceiveMaximum int            `yaml:"receive_maximum"` // most QoS 1 and 2 messages of one client that wait for their acknowledgement, 1 to 65535
	ConnectTimeout Duration       `yaml:"connect_timeout"` // from accept to CONNECT, handshakes included
	WriteTimeout   Duration       `yaml:"write_timeout"`   // a peer that takes nothing for so long is dropped
	Mountpoint     string         `yaml:"mountpoint"`      // template, put before the topics of clients; empty = none
	ClientID       string         `yaml:"client_id"`       // template in the place of the client's identifier; empty = what it sent
	Username       string         `yaml:"username"`        // template in the place of its user name; empty = what it sent
	MQTT3Denied    MQTT3Denied    `yaml:"mqtt3_denied"`    // what becomes of a publish that may not be made and that a client before version 5 cannot be told of
	CheckFormat    bool           `yaml:"check_payload_format"`
}

// ProxyProtocol says which proxies put the address of the client before its bytes. From other addresses nobody can connect.
type ProxyProtocol struct {
	Trusted []Network `yaml:"trusted"`
}

// CoAP is one CoAP endpoint.
type CoAP struct {
	Name        string        `yaml:"name"`
	Bind        Addr          `yaml:"bind"`
	Transport   CoAPTransport `yaml:"transport"`
	Echo        Echo          `yaml:"echo"`
	Rate        int           `yaml:"rate"`         // most requests per second of one address, 0 = no limit; more get 4.29
	MaxPeers    int           `yaml:"max_peers"`    // remembered addresses; the one that was silent for longest makes room
	MaxBody     Bytes         `yaml:"max_body"`     // larger bodies get 4.13
	SessionIdle Duration      `yaml:"session_idle"` // a session without traffic and observations ends
	Mountpoint  string        `yaml:"mountpoint"`   // as with MQTT, as are the next two
	ClientID    string        `yaml:"client_id"`
	Username    string        `yaml:"username"`
}

// HTTP is one listener for HTTP clients.
type HTTP struct {
	Name           string   `yaml:"name"`
	Bind           Addr     `yaml:"bind"`
	MaxConnections int      `yaml:"max_connections"` // more are closed at once
	MaxBody        Bytes    `yaml:"max_body"`        // larger request bodies get 413
	SessionIdle    Duration `yaml:"session_idle"`    // a session without requests ends
	Hosts          []string `yaml:"hosts"`           // names under which clients on this machine may address the gateway, beside its own
	Origins        []string `yaml:"origins"`         // origins whose pages may use this listener from a browser
	Mountpoint     string   `yaml:"mountpoint"`      // as with MQTT, as are the next two
	ClientID       string   `yaml:"client_id"`
	Username       string   `yaml:"username"`
}

// Auth says who may connect.
type Auth struct {
	Anonymous Anonymous `yaml:"anonymous"`
}

// Broker is what holds for every client, whatever its protocol.
type Broker struct {
	Durability     Durability         `yaml:"durability"`
	SyncInterval   Duration           `yaml:"sync_interval"` // with durability: interval
	MaxPacketSize  Bytes              `yaml:"max_packet_size"`
	SharedStrategy SharedStrategy     `yaml:"shared_strategy"` // who of a shared subscription gets a message
	SysInterval    Duration           `yaml:"sys_interval"`    // how often $SYS topics are refreshed, 0 = there are none
	SysEvents      SysEvents          `yaml:"sys_events"`
	Session        Session            `yaml:"session"`
	Rewrite        []RewriteRule      `yaml:"rewrite"`        // of topics and filters; of those whose filter matches the last one decides
	AutoSubscribe  []AutoSubscription `yaml:"auto_subscribe"` // what MQTT clients are subscribed to when they connect
	Retained       Retained           `yaml:"retained"`
	Delayed        Delayed            `yaml:"delayed"`
}

// Delayed limits what waits to be published later, all together.
type Delayed struct {
	MaxMessages int   `yaml:"max_messages"` // 0 = nothing can be published later
	MaxBytes    Bytes `yaml:"max_bytes"`    // payloads, topics and 160 bytes each
}

// Retained limits what is retained for clients, all together.
type Retained struct {
	MaxCount      int      `yaml:"max_count"`      // values
	MaxBytes      Bytes    `yaml:"max_bytes"`      // payloads, topics and 160 bytes each
	MaxPayload    Bytes    `yaml:"max_payload"`    // of one value, 0 = as max_packet_size
	DefaultExpiry Duration `yaml:"default_expiry"` // of a value without one, 0 = for ever
	MaxExpiry     Duration `yaml:"max_expiry"`     // longest time a value is kept, 0 = no limit
}

// SysEvents says which events are published below $SYS, if there are $SYS topics.
type SysEvents struct {
	Connections   bool `yaml:"connections"`   // clients that connect and disconnect
	Subscriptions bool `yaml:"subscriptions"` // clients that subscribe and unsubscribe
}

// Session limits each client session.
type Session struct {
	MaxExpiry   Duration        `yaml:"max_expiry"`   // longest time a session outlives its connection
	MaxKept     int             `yaml:"max_kept"`     // sessions that outlive their connection; a client that would be one more is refused
	QueueBytes  Bytes           `yaml:"queue_bytes"`  // cap of one session's queue
	WhenFull    SessionWhenFull `yaml:"when_full"`    // what happens at that cap
	Inflight    int             `yaml:"inflight"`     // most deliveries sent to one client and not acknowledged
	MemoryBytes Bytes           `yaml:"memory_bytes"` // cap of what one session holds in memory; more of a durable queue is read back from the store, QoS 0 loses its oldest
}

// Store says where sessions, retained messages and session queues are kept.
type Store struct {
	Type StoreType `yaml:"type"`
}

// Admin is the operator's HTTP interface.
type Admin struct {
	Bind      Addr     `yaml:"bind"`
	TokenFile string   `yaml:"token_file"` // relative to data_dir, see [Config.TokenPath]
	Hosts     []string `yaml:"hosts"`      // names under which it may be asked for, beside addresses, localhost and the host name
}

// Default returns the configuration without a file: every listener on loopback only, data in ./gantry-data, no bridges.
func Default() *Config {
	c := defaults()
	c.Listeners = Listeners{
		MQTT: []MQTT{defaultMQTT()},
		CoAP: []CoAP{defaultCoAP()},
		HTTP: []HTTP{defaultHTTP()},
	}
	return c
}

// defaults is Default without listeners: what a file that lists its own listeners starts from.
func defaults() *Config {
	return &Config{
		DataDir: "gantry-data",
		Log:     Log{Level: "info", Format: "text"},
		Auth:    Auth{Anonymous: AnonymousLoopback},
		Broker: Broker{
			Durability:     DurabilitySync,
			SyncInterval:   Duration(50 * time.Millisecond),
			MaxPacketSize:  MiB,
			SharedStrategy: SharedRoundRobin,
			SysInterval:    Duration(10 * time.Second),
			SysEvents:      SysEvents{Connections: true},
			Session: Session{
				MaxExpiry:   Duration(24 * time.Hour),
				MaxKept:     100_000,
				QueueBytes:  64 * MiB,
				WhenFull:    SessionRefuse,
				Inflight:    64,
				MemoryBytes: 8 * MiB,
			},
			Retained: Retained{MaxCount: 100_000, MaxBytes: 64 * MiB},
			Delayed:  Delayed{MaxMessages: 100_000, MaxBytes: 64 * MiB},
		},
		Store: Store{Type: StoreEmbedded},
		Admin: Admin{Bind: "127.0.0.1:18083", TokenFile: "admin.token"},
	}
}

func defaultMQTT() MQTT {
	return MQTT{
		Name: "tcp", Bind: "127.0.0.1:1883", Transport: MQTTOverTCP,
		MaxConnections: 10000, ReceiveMaximum: 1000,
		ConnectTimeout: Duration(10 * time.Second), WriteTimeout: Duration(5 * time.Second),
		MQTT3Denied: MQTT3Ignore,
	}
}

func defaultCoAP() CoAP {
	return CoAP{
		Name: "udp", Bind: "127.0.0.1:5683", Transport: CoAPOverUDP,
		Echo: EchoRequired, Rate: 1000, MaxPeers: 50000, MaxBody: MiB, SessionIdle: Duration(5 * time.Minute),
	}
}

func defaultHTTP() HTTP {
	return HTTP{
		Name: "http", Bind: "127.0.0.1:8080",
		MaxConnections: 1000, MaxBody: MiB, SessionIdle: Duration(time.Minute),
	}
}

// setDefaults gives a new list entry its defaults, all but the name and the address: those a file has to say.
func (l *MQTT) setDefaults() { *l = defaultMQTT(); l.Name, l.Bind = "", "" }
func (l *CoAP) setDefaults() { *l = defaultCoAP(); l.Name, l.Bind = "", "" }
func (l *HTTP) setDefaults() { *l = defaultHTTP(); l.Name, l.Bind = "", "" }

// WebSocketPath returns the path at which a WebSocket listener serves MQTT.
func (l *MQTT) WebSocketPath() string {
	if l.Path == "" {
		return "/mqtt"
	}
	return l.Path
}

// NodeName returns the name of this gateway: node, or the host name where the file does not say.
func (c *Config) NodeName() string {
	if c.Node != "" {
		return c.Node
	}
	host, err := os.Hostname()
	if err != nil || host == "" {
		return "gantry"
	}
	return host
}

// TokenPath returns the path of the file with the admin token, which is relative to data_dir.
func (c *Config) TokenPath() string {
	if filepath.IsAbs(c.Admin.TokenFile) {
		return c.Admin.TokenFile
	}
	return filepath.Join(c.DataDir, c.Admin.TokenFile)
}
