package ws

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
)

const (
	// maxRequest bounds the request line and the headers: room for the cookies
	// that a browser may send along.
	maxRequest = 16 << 10
	// acceptGUID is the constant of RFC 6455 section 4.2.2.
	acceptGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
)

// protocols are the subprotocols that are served, the preferred one first: mqtt
// [MQTT-6.0.0-4], and what version 3.1 was called.
var protocols = []string{"mqtt", "mqttv3.1"}

// refusal is why a request is not answered with a WebSocket.
type refusal struct {
	status int
	result string // for the metrics
	text   string
}

func (r *refusal) Error() string {
	return fmt.Sprintf("WebSocket request refused with %d: %s", r.status, r.text)
}

func refuse(status int, result, format string, args ...any) *refusal {
	return &refusal{status, result, fmt.Sprintf(format, args...)}
}

// upgrade reads the request and answers it. An error of the connection, such as
// a deadline, leaves what was read in place.
func (c *Conn) upgrade() error {
	for {
		if end := bytes.Index(c.request, []byte("\r\n\r\n")); end >= 0 {
			return c.answer(c.request[:end+4], c.request[end+4:])
		}
		if len(c.request) > 0 && c.request[0] != 'G' { // not GET; perhaps no HTTP at all
			return c.reject(refuse(http.StatusBadRequest, "bad_request", "want a GET request with Upgrade: websocket"))
		}
		if len(c.request) >= maxRequest {
			return c.reject(refuse(http.StatusRequestHeaderFieldsTooLarge, "bad_request", "headers are larger than %d bytes", maxRequest))
		}
		c.request = slices.Grow(c.request, min(1024, maxRequest-len(c.request)))
		free := c.request[len(c.request):min(cap(c.request), maxRequest)]
		n, err := c.nc.Read(free)
		c.request = c.request[:len(c.request)+n]
		if n == 0 && err != nil {
			return err
		}
	}
}

func (c *Conn) answer(head, rest []byte) error {
	r, err := http.ReadRequest(bufio.NewReaderSize(bytes.NewReader(head), len(head)))
	if err != nil || !validNames(r.Header) {
		return c.reject(refuse(http.StatusBadRequest, "bad_request", "not an HTTP request"))
	}
	protocol, no := c.l.rules.judge(r)
	if no != nil {
		return c.reject(no)
	}
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + acceptGUID))
	if _, err := fmt.Fprintf(c.nc, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: %s\r\n\r\n", base64.StdEncoding.EncodeToString(sum[:]), protocol); err != nil {
		c.err = final("answer WebSocket request", err)
		return c.err
	}
	c.rest, c.request = bytes.Clone(rest), nil
	c.l.metrics.upgrade("accepted")
	c.upgraded.Store(true)
	return nil
}

func (c *Conn) reject(no *refusal) error {
	c.err, c.request = no, nil
	c.l.metrics.upgrade(no.result)
	c.l.log.Debug("WebSocket request refused", "remote", c.nc.RemoteAddr().String(), "status", no.status, "err", no.text)
	extra := ""
	if no.status == http.StatusUpgradeRequired {
		extra = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
	}
	if _, err := fmt.Fprintf(c.nc, "HTTP/1.1 %d %s\r\n%sContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s\n",
		no.status, http.StatusText(no.status), extra, len(no.text)+1, no.text); err == nil {
		c.drain()
	}
	return no
}

// rules decide about requests.
type rules struct {
	path    string
	origins []string // beside the listener's own
	host    string   // of this machine
}

func newRules(cfg *Config) rules {
	r := rules{path: cfg.Path, origins: cfg.Origins}
	if name, err := os.Hostname(); err == nil {
		r.host = strings.ToLower(name)
	}
	return r
}

// judge returns the subprotocol of a request that is to be answered with a
// WebSocket (RFC 6455 section 4.2.1).
func (g *rules) judge(r *http.Request) (protocol string, no *refusal) {
	const bad = "bad_request"
	key, err := base64.StdEncoding.DecodeString(r.Header.Get("Sec-WebSocket-Key"))
	version := r.Header.Values("Sec-WebSocket-Version")
	switch {
	case r.Method != http.MethodGet || !r.ProtoAtLeast(1, 1) || r.Host == "" || r.ContentLength != 0:
		return "", refuse(http.StatusBadRequest, bad, "want a GET request of HTTP/1.1 without a body")
	case r.URL.Path != g.path:
		return "", refuse(http.StatusNotFound, "path", "MQTT is served at another path")
	case !hasToken(r.Header, "Connection", "upgrade", strings.EqualFold) || !hasToken(r.Header, "Upgrade", "websocket", strings.EqualFold):
		return "", refuse(http.StatusUpgradeRequired, bad, "want Connection: Upgrade and Upgrade: websocket")
	case len(version) != 1 || version[0] != "13":
		return "", refuse(http.StatusUpgradeRequired, bad, "want Sec-WebSocket-Version: 13")
	case len(r.Header.Values("Sec-WebSocket-Key")) != 1 || err != nil || len(key) != 16:
		return "", refuse(http.StatusBadRequest, bad, "Sec-WebSocket-Key is not 16 bytes in base64")
	case !g.fromHere(r):
		return "", refuse(http.StatusForbidden, "origin", "request comes from a page of an origin that is not in origins")
	}
	for _, p := range protocols {
		if hasToken(r.Header, "Sec-WebSocket-Protocol", p, exactly) {
			return p, nil
		}
	}
	return "", refuse(http.StatusBadRequest, "subprotocol", "want Sec-WebSocket-Protocol: mqtt") // [MQTT-6.0.0-3]
}

// validNames reports whether the names of all headers are tokens. The library
// lets others pass, such as one with a space before the colon (RFC 9112
// section 5.1), which a proxy may read as the name that was meant.
func validNames(h http.Header) bool {
	const symbols = "!#$%&'*+-.^_`|~"
	for name := range h {
		if strings.ContainsFunc(name, func(r rune) bool {
			return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && !strings.ContainsRune(symbols, r)
		}) {
			return false
		}
	}
	return true
}

// exactly compares subprotocols: the client must find in the answer what it
// offered (RFC 6455 section 4.1).
func exactly(a, b string) bool { return a == b }

// hasToken looks for a token in the comma-separated lists of a header.
func hasToken(h http.Header, name, token string, equal func(a, b string) bool) bool {
	for _, list := range h.Values(name) {
		for t := range strings.SplitSeq(list, ",") {
			if equal(strings.Trim(t, " \t"), token) {
				return true
			}
		}
	}
	return false
}

// fromHere reports whether a request comes from a program, or from a page that
// may use the listener: one of an origin in the list, or of the address or
// machine that the listener is on. Another name that leads here does not count:
// a foreign page can let its own name lead to any address.
func (g *rules) fromHere(r *http.Request) bool {
	values := r.Header.Values("Origin")
	if len(values) == 0 {
		return true // no browser
	}
	if len(values) > 1 {
		return false
	}
	if slices.Contains(g.origins, strings.ToLower(values[0])) {
		return true
	}
	origin, err := url.Parse(values[0])
	return err == nil && origin.Host != "" && strings.EqualFold(origin.Host, r.Host) && g.isOurs(origin.Hostname())
}

func (g *rules) isOurs(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || host == g.host && g.host != ""
}
