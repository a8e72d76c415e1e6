package httppush

import (
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// guard keeps pages in a browser from using the gateway with the rights of the
// machine, or of the user, that the browser runs for.
type guard struct {
	hosts   map[string]bool
	origins []string
}

func newGuard(cfg *Config) guard {
	g := guard{hosts: map[string]bool{"localhost": true}, origins: cfg.Origins}
	if name, err := os.Hostname(); err == nil {
		g.hosts[strings.ToLower(name)] = true
	}
	for _, h := range cfg.Hosts {
		g.hosts[strings.ToLower(h)] = true
	}
	return g
}

// check refuses a request of a page, and a request on the loopback interface
// for a name that is not ours. It returns the origin of a page that is allowed,
// else "".
func (g *guard) check(r *http.Request) (origin string, err error) {
	if fromLoopback(r) && !g.ownHost(r.Host) {
		return "", fail(http.StatusMisdirectedRequest, "the host name is not one of the gateway's; add it to hosts if it should be")
	}
	values := r.Header.Values("Origin")
	if len(values) == 0 {
		if site := r.Header.Get("Sec-Fetch-Site"); site == "cross-site" || site == "same-site" {
			return "", fail(http.StatusForbidden, "request comes from a page")
		}
		return "", nil
	}
	if len(values) > 1 || !slices.Contains(g.origins, values[0]) {
		return "", fail(http.StatusForbidden, "request comes from a page of an origin that is not in origins")
	}
	return values[0], nil
}

func fromLoopback(r *http.Request) bool {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && peer.Addr().Unmap().IsLoopback()
}

func (g *guard) ownHost(hostport string) bool {
	if hostport == "" {
		return true // HTTP/1.0; a browser always names a host
	}
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if _, err := netip.ParseAddr(host); err == nil {
		return true // another page cannot take an address for its name
	}
	return g.hosts[strings.ToLower(strings.TrimSuffix(host, "."))]
}

// allowOrigin lets the page of an allowed origin read the answer (CORS).
func allowOrigin(h http.Header, origin string) {
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Expose-Headers", "ETag, Retry-After")
	h.Add("Vary", "Origin")
}

// answerOptions tells what a path allows, for a browser that asks before it sends.
func answerOptions(w http.ResponseWriter, allow, origin string) {
	h := w.Header()
	h.Set("Allow", allow)
	if origin != "" {
		h.Set("Access-Control-Allow-Methods", allow)
		h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, If-None-Match, X-Client-Id")
		h.Set("Access-Control-Max-Age", "600")
	}
	w.WriteHeader(http.StatusNoContent)
}
