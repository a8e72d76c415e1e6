package config

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"gantry/broker"
)

// names of listeners and bridges become names of folders, labels of metrics and parts of URLs.
var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

const (
	nameRule = "want letters, digits, dot, _ and -, at most 64, the first a letter or digit"

	// largest message that a gateway of a few hundred MiB can hold a window of
	maxPacketLimit = 64 * MiB

	maxHeaders = 127 // of a record of a bridge

	// what a queue of a bridge can work with
	minSegmentBytes, maxSegmentBytes = 64 * KiB, GiB
	minQueueBytes                    = 2 * minSegmentBytes
)

// check adds a problem of the value at a key path.
type check func(path, format string, args ...any)

// Validate checks a configuration that a program made or changed and returns [Problems], or nil. [Load] has already done it.
func (c *Config) Validate() error {
	d := &decoder{}
	c.validate(d.check)
	return d.problems.asError()
}

func (c *Config) validate(add check) {
	if c.Node != "" && !validName.MatchString(c.Node) {
		add("node", "%q is not a name: %s", c.Node, nameRule)
	}
	if c.DataDir == "" {
		add("data_dir", "is empty")
	}
	c.Listeners.validate(add)
	c.Broker.validate(add)
	names := make(map[string]string)
	for i := range c.Bridges {
		path := fmt.Sprintf("bridges[%d]", i)
		uniqueName(add, names, c.Bridges[i].Name, path)
		c.Bridges[i].validate(add, path)
	}
	inetBind(add, "admin", c.Admin.Bind)
	if c.Admin.TokenFile == "" {
		add("admin.token_file", "is empty")
	}
	c.validatePorts(add)
}

func (l *Listeners) validate(add check) {
	names := make(map[string]string)
	for i := range l.MQTT {
		path := fmt.Sprintf("listeners.mqtt[%d]", i)
		uniqueName(add, names, l.MQTT[i].Name, path)
		l.MQTT[i].validate(add, path)
	}
	names = make(map[string]string)
	for i, c := range l.CoAP {
		path := fmt.Sprintf("listeners.coap[%d]", i)
		uniqueName(add, names, c.Name, path)
		inetBind(add, path, c.Bind)
		validateNaming(add, path, c.Mountpoint, c.ClientID, c.Username, false)
		inRange(add, path+".rate", c.Rate, 0, 1_000_000)
		inRange(add, path+".max_peers", c.MaxPeers, 1, 1_000_000)
		inRange(add, path+".max_body", c.MaxBody, 1, maxPacketLimit)
		inRange(add, path+".session_idle", c.SessionIdle, Duration(time.Second), Duration(30*24*time.Hour))
	}
	names = make(map[string]string)
	for i, h := range l.HTTP {
		path := fmt.Sprintf("listeners.http[%d]", i)
		uniqueName(add, names, h.Name, path)
		inetBind(add, path, h.Bind)
		inRange(add, path+".max_connections", h.MaxConnections, 1, 1_000_000)
		inRange(add, path+".max_body", h.MaxBody, 1, maxPacketLimit)
		inRange(add, path+".session_idle", h.SessionIdle, Duration(time.Second), Duration(24*time.Hour))
		validateOrigins(add, path, h.Origins)
		validateNaming(add, path, h.Mountpoint, h.ClientID, h.Username, false)
	}
}

func (m *MQTT) validate(add check, path string) {
	required(add, path+".bind", string(m.Bind))
	inRange(add, path+".max_connections", m.MaxConnections, 1, 1_000_000)
	inRange(add, path+".receive_maximum", m.ReceiveMaximum, 1, math.MaxUint16)
	inRange(add, path+".connect_timeout", m.ConnectTimeout, Duration(time.Second), Duration(5*time.Minute))
	inRange(add, path+".write_timeout", m.WriteTimeout, Duration(100*time.Millisecond), Duration(5*time.Minute))
	if m.Transport == MQTTOverWebSocket {
		if m.Path != "" && (!strings.HasPrefix(m.Path, "/") || strings.ContainsAny(m.Path, "?#%")) {
			add(path+".path", "%q is not a path such as /mqtt", m.Path)
		}
		validateOrigins(add, path, m.Origins)
	} else {
		onlyWebSocket(add, path+".path", m.Path != "")
		onlyWebSocket(add, path+".origins", len(m.Origins) > 0)
	}
	if m.TLS != nil {
		m.TLS.validate(add, path+".tls")
	}
	validateNaming(add, path, m.Mountpoint, m.ClientID, m.Username, m.TLS != nil && m.TLS.Identity == IdentityCN)
	if m.Transport == MQTTOverQUIC {
		m.validateQUIC(add, path)
		return
	}
	if m.MultiStream {
		add(path+".multi_stream", "has no effect without transport: quic")
	}
	if m.ProxyProtocol == nil {
		return
	}
	if len(m.ProxyProtocol.Trusted) == 0 {
		add(path+".proxy_protocol.trusted", "is missing: nobody could connect")
	}
	if m.Bind.IsUnix() {
		add(path+".proxy_protocol", "a Unix socket has no addresses that could be trusted")
	}
}

// validateQUIC checks what only a UDP socket asks for.
func (m *MQTT) validateQUIC(add check, path string) {
	if m.TLS == nil {
		add(path+".tls", "is missing: there is no QUIC without TLS")
	}
	if m.Bind.IsUnix() {
		add(path+".bind", "QUIC needs a UDP port, not a Unix socket")
	}
	if m.ProxyProtocol != nil {
		add(path+".proxy_protocol", "is not for transport: quic, whose packets have no place for it")
	}
}

func onlyWebSocket(add check, path string, set bool) {
	if set {
		add(path, "has no effect without transport: websocket")
	}
}

func validateOrigins(add check, path string, origins []string) {
	for k, origin := range origins {
		if !validOrigin(origin) {
			add(fmt.Sprintf("%s.origins[%d]", path, k), "%q is not an origin as browsers send it, such as https://panel.example:8443 or https://panel.example", origin)
		}
	}
}

// inetBind checks the address of a part that has no Unix socket.
func inetBind(add check, path string, bind Addr) {
	if required(add, path+".bind", string(bind)) && bind.IsUnix() {
		add(path+".bind", "only MQTT listeners can be Unix sockets")
	}
}

func validOrigin(s string) bool {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || s != strings.ToLower(u.Scheme+"://"+u.Host) || strings.Contains(u.Host, "*") {
		return false
	}
	// Browsers leave out the usual port.
	return u.Scheme == "http" && u.Port() != "80" || u.Scheme == "https" && u.Port() != "443"
}

func (b *Broker) validate(add check) {
	inRange(add, "broker.sync_interval", b.SyncInterval, Duration(time.Millisecond), Duration(time.Minute))
	inRange(add, "broker.max_packet_size", b.MaxPacketSize, KiB, maxPacketLimit)
	if b.SysInterval != 0 {
		inRange(add, "broker.sys_interval", b.SysInterval, Duration(time.Second), Duration(time.Hour))
	}
	b.validateRewrite(add)
	b.validateAutoSubscribe(add)
	s := b.Session
	inRange(add, "broker.session.inflight", s.Inflight, 1, math.MaxUint16)
	inRange(add, "broker.session.max_expiry", s.MaxExpiry, Duration(time.Second), Duration(100*365*24*time.Hour))
	inRange(add, "broker.session.max_kept", s.MaxKept, 1, 10_000_000)
	inRange(add, "broker.session.memory_bytes", s.MemoryBytes, 64*KiB, GiB)
	if s.QueueBytes < b.MaxPacketSize {
		add("broker.session.queue_bytes", "%s cannot hold one message of broker.max_packet_size (%s)", s.QueueBytes, b.MaxPacketSize)
	}
	b.Retained.validate(add)
	inRange(add, "broker.delayed.max_messages", b.Delayed.MaxMessages, 0, 10_000_000)
	inRange(add, "broker.delayed.max_bytes", b.Delayed.MaxBytes, MiB, 64*GiB)
}

func (r *Retained) validate(add check) {
	const longest = Duration(100 * 365 * 24 * time.Hour)
	inRange(add, "broker.retained.max_count", r.MaxCount, 1, 100_000_000)
	inRange(add, "broker.retained.max_bytes", r.MaxBytes, MiB, 64*GiB)
	inRange(add, "broker.retained.max_payload", r.MaxPayload, 0, maxPacketLimit)
	inRange(add, "broker.retained.default_expiry", r.DefaultExpiry, 0, longest)
	inRange(add, "broker.retained.max_expiry", r.MaxExpiry, 0, longest)
	if r.MaxExpiry > 0 && r.DefaultExpiry > r.MaxExpiry {
		add("broker.retained.default_expiry", "%v is longer than broker.retained.max_expiry (%v)", r.DefaultExpiry, r.MaxExpiry)
	}
}

func (b *Bridge) validate(add check, path string) {
	required(add, path+".type", string(b.Type))
	if b.Type == BridgeKafka {
		b.validateKafka(add, path)
	}
	q := b.Queue
	if q.SegmentBytes != 0 {
		inRange(add, path+".queue.segment_bytes", q.SegmentBytes, minSegmentBytes, maxSegmentBytes)
	}
	switch {
	case q.MaxBytes < minQueueBytes:
		add(path+".queue.max_bytes", "%s is less than %s", q.MaxBytes, minQueueBytes)
	case q.MaxBytes < 2*q.SegmentBytes:
		add(path+".queue.max_bytes", "%s is less than two segments of queue.segment_bytes (%s)", q.MaxBytes, q.SegmentBytes)
	}
	if b.DeadLetter.MaxBytes < minQueueBytes {
		add(path+".dead_letter.max_bytes", "%s is less than %s", b.DeadLetter.MaxBytes, minQueueBytes)
	}
}

func (b *Bridge) validateKafka(add check, path string) {
	if len(b.Brokers) == 0 {
		add(path+".brokers", "is missing")
	}
	for i, addr := range b.Brokers {
		if addr != "" && (addr.host() == "" || addr.port() == 0) {
			add(fmt.Sprintf("%s.brokers[%d]", path, i), "%q needs a host and a port", addr)
		}
	}
	if b.TLS != nil {
		b.TLS.validate(add, path+".tls")
	}
	if b.SASL != nil {
		required(add, path+".sasl.mechanism", string(b.SASL.Mechanism))
		required(add, path+".sasl.user", b.SASL.User)
		required(add, path+".sasl.password", string(b.SASL.Password))
	}
	if len(b.Routes) == 0 {
		add(path+".routes", "is missing: without a route no message reaches the bridge")
	}
	for i := range b.Routes {
		b.Routes[i].validate(add, fmt.Sprintf("%s.routes[%d]", path, i))
	}
}

func (r *Route) validate(add check, path string) {
	if r.Filter == "" {
		add(path+".filter", "is missing")
	} else if err := validRouteFilter(r.Filter); err != nil {
		add(path+".filter", "%q: %v", r.Filter, err)
	}
	if required(add, path+".topic", r.Topic) {
		template(add, path+".topic", r.Topic)
	}
	template(add, path+".key", r.Key)
	if len(r.Headers) > maxHeaders {
		add(path+".headers", "%d headers are more than %d", len(r.Headers), maxHeaders)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
		key := join(path+".headers", name)
		if name == "" {
			add(key, "a header has no name")
		}
		template(add, key, r.Headers[name])
	}
}

func validRouteFilter(filter string) error {
	if filter == "$share" || strings.HasPrefix(filter, "$share/") {
		return errors.New("a route is not a shared subscription")
	}
	return broker.ValidFilter(filter)
}

// uniqueName checks the name of a list entry. taken has the names so far with the path of the entry that has them.
func uniqueName(add check, taken map[string]string, name, path string) {
	if !required(add, path+".name", name) {
		return
	}
	if !validName.MatchString(name) {
		add(path+".name", "%q is not a name: %s", name, nameRule)
		return
	}
	// file systems that ignore case would give two such bridges one folder
	if other, dup := taken[strings.ToLower(name)]; dup {
		add(path+".name", "%q is also the name of %s", name, other)
		return
	}
	taken[strings.ToLower(name)] = path
}

func required(add check, path, value string) bool {
	if value == "" {
		add(path, "is missing")
	}
	return value != ""
}

func inRange[T ~int | ~int64](add check, path string, v, lo, hi T) {
	if v < lo || v > hi {
		add(path, "%v is outside %v to %v", v, lo, hi)
	}
}
