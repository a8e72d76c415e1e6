package httppush

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"gantry/broker"
)

// Config describes one HTTP listener. The zero value of each field means its
// default.
type Config struct {
	// Name is shown in listings. Default "http".
	Name string
	// Bind is host:port; an empty host means all addresses. Default ":8080".
	Bind string
	// TLS, if set, makes the listener HTTPS, with HTTP/2.
	TLS *tls.Config

	// Hosts are names under which clients on this machine may address the
	// gateway, beside addresses, localhost and the host's own name. Requests
	// from a loopback address that name another host are refused with 421: they
	// come from a page that made its name resolve to 127.0.0.1, or from a proxy
	// that would make the whole world a local client.
	Hosts []string
	// Origins are the origins (https://host:port) whose pages may use this
	// listener from a browser. Default none: a request with another Origin gets
	// 403. Devices send no Origin.
	Origins []string

	// Naming is what the listener makes of the names that clients use. Default:
	// nothing.
	Naming broker.Naming

	// MaxBody caps a request body in bytes; larger ones get 413. Default 1 MiB.
	MaxBody int
	// MaxConnections caps open connections; more are closed at once. Default
	// 1000.
	MaxConnections int
	// MaxPending caps the requests that wait for the broker, MaxPendingBytes
	// the bodies that are held for them or being read; more get 503. Defaults
	// 1024 and 64 MiB, or one body where that is more.
	MaxPending      int
	MaxPendingBytes int
	// MaxSessions caps the sessions that are kept; more get 503 while none of
	// them is idle. Default 10,000.
	MaxSessions int

	// HeaderTimeout and BodyTimeout bound how long a client may take to send a
	// request, WriteTimeout how long to take the answer. Defaults 5 s, 30 s and
	// 5 s.
	HeaderTimeout time.Duration
	BodyTimeout   time.Duration
	WriteTimeout  time.Duration
	// AckTimeout bounds how long a request waits for the broker, back-pressure
	// included. Default 30 s.
	AckTimeout time.Duration
	// IdleTimeout closes a connection without requests. Default 60 s.
	IdleTimeout time.Duration
	// SessionIdle ends a session without requests. Default 60 s.
	SessionIdle time.Duration
	// DrainTimeout bounds how long Run waits at its end for requests that the
	// broker has not answered yet. Default 5 s.
	DrainTimeout time.Duration
}

// maxHeaderBytes caps a request line with its header.
const maxHeaderBytes = 16 << 10

func (c *Config) setDefaults() {
	orString(&c.Name, "http")
	orString(&c.Bind, ":8080")
	orInt(&c.MaxBody, 1<<20)
	orInt(&c.MaxConnections, 1000)
	orInt(&c.MaxPending, 1024)
	orInt(&c.MaxPendingBytes, max(64<<20, c.MaxBody))
	orInt(&c.MaxSessions, 10_000)
	orDuration(&c.HeaderTimeout, 5*time.Second)
	orDuration(&c.BodyTimeout, 30*time.Second)
	orDuration(&c.WriteTimeout, 5*time.Second)
	orDuration(&c.AckTimeout, 30*time.Second)
	orDuration(&c.IdleTimeout, 60*time.Second)
	orDuration(&c.SessionIdle, 60*time.Second)
	orDuration(&c.DrainTimeout, 5*time.Second)
}

// Validate reports every problem of the configuration, defaults applied.
func (c Config) Validate() error {
	c.setDefaults()
	var problems []error
	if _, _, err := net.SplitHostPort(c.Bind); err != nil {
		problems = append(problems, fmt.Errorf("bind: %w", err))
	}
	for _, o := range c.Origins {
		if !validOrigin(o) {
			problems = append(problems, fmt.Errorf("origins: %q is not an origin such as https://panel.example:8443", o))
		}
	}
	for _, n := range []struct {
		name  string
		value int
	}{
		{"max_body", c.MaxBody},
		{"max_connections", c.MaxConnections},
		{"max_pending", c.MaxPending},
		{"max_pending_bytes", c.MaxPendingBytes},
		{"max_sessions", c.MaxSessions},
	} {
		if n.value < 1 {
			problems = append(problems, fmt.Errorf("%s: %d is below 1", n.name, n.value))
		}
	}
	if c.MaxPendingBytes < c.MaxBody {
		problems = append(problems, fmt.Errorf("max_pending_bytes: %d is below max_body %d", c.MaxPendingBytes, c.MaxBody))
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"header_timeout", c.HeaderTimeout},
		{"body_timeout", c.BodyTimeout},
		{"write_timeout", c.WriteTimeout},
		{"ack_timeout", c.AckTimeout},
		{"idle_timeout", c.IdleTimeout},
		{"session_idle", c.SessionIdle},
		{"drain_timeout", c.DrainTimeout},
	} {
		if d.value <= 0 {
			problems = append(problems, fmt.Errorf("%s: %v is not positive", d.name, d.value))
		}
	}
	return errors.Join(problems...)
}

func validOrigin(o string) bool {
	u, err := url.Parse(o)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && o == u.Scheme+"://"+u.Host && u.Host != "" && o == strings.ToLower(o)
}

func orString(p *string, v string) {
	if *p == "" {
		*p = v
	}
}

func orInt(p *int, v int) {
	if *p == 0 {
		*p = v
	}
}

func orDuration(p *time.Duration, v time.Duration) {
	if *p == 0 {
		*p = v
	}
}
