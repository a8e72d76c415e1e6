package ws

import (
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config describes one listener. The zero value of a field means its default.
type Config struct {
	// Name of the listener, a label of its metrics.
	Name string
	// Path at which MQTT is served. Default "/mqtt".
	Path string
	// Origins whose pages may use the listener from a browser, such as
	// https://panel.example, beside pages that come from the listener's own
	// address. Programs send no origin and need none.
	Origins []string
	// MaxMessageSize is the largest message in bytes. Messages are not held in
	// memory, and one may carry many packets. Default 64 MiB.
	MaxMessageSize int64
}

// upgradeTimeout bounds the write of an answer. How long a client may take for
// its request is for the owner of the connection to say.
const upgradeTimeout = 10 * time.Second

// Listener is a net.Listener of WebSockets on another one.
type Listener struct {
	ln         net.Listener
	rules      rules
	maxMessage uint64
	log        *slog.Logger
	metrics    *metrics
	once       sync.Once
}

// New wraps a listener and owns it from then on, unless an error is returned.
// log and reg may be nil.
func New(ln net.Listener, cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Listener, error) {
	if cfg.Path == "" {
		cfg.Path = "/mqtt"
	}
	if !strings.HasPrefix(cfg.Path, "/") {
		return nil, fmt.Errorf("WebSocket path %q of listener %s does not begin with /", cfg.Path, cfg.Name)
	}
	if cfg.MaxMessageSize <= 0 {
		cfg.MaxMessageSize = 64 << 20
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	m, err := newMetrics(cfg.Name, reg)
	if err != nil {
		return nil, fmt.Errorf("metrics of listener %s: %w", cfg.Name, err)
	}
	return &Listener{ln: ln, rules: newRules(&cfg), maxMessage: uint64(cfg.MaxMessageSize), log: log, metrics: m}, nil
}

// Addr is the bound address.
func (l *Listener) Addr() net.Addr { return l.ln.Addr() }

// Accept returns the next connection. Its first Read is the handshake.
func (l *Listener) Accept() (net.Conn, error) {
	nc, err := l.ln.Accept()
	if err != nil {
		return nil, err
	}
	c := &Conn{nc: nc, l: l, dec: decoder{maxMessage: l.maxMessage}}
	_ = c.SetWriteDeadline(time.Now().Add(upgradeTimeout)) // a connection without deadlines is closed: Read tells
	return c, nil
}

// Close closes the listener. It is safe to call more than once.
func (l *Listener) Close() error {
	l.once.Do(l.metrics.unregister)
	return l.ln.Close()
}
