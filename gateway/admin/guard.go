package admin

import (
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
)

// hostSet returns the names under which the interface may be asked for.
func hostSet(extra []string) map[string]bool {
	set := map[string]bool{"localhost": true}
	if name, err := os.Hostname(); err == nil {
		set[strings.ToLower(name)] = true
	}
	for _, h := range extra {
		set[strings.ToLower(h)] = true
	}
	return set
}

// guardHost refuses names that are not ours. A page that makes its own name
// resolve to 127.0.0.1 reaches this server, but cannot change the Host header.
func (s *Server) guardHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.ownHost(r.Host) {
			writeProblem(w, http.StatusMisdirectedRequest, "this name is not one of the gateway's; add it to the admin hosts if it should be")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) ownHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if _, err := netip.ParseAddr(host); err == nil {
		return true // rebinding needs a name
	}
	return s.hosts[strings.ToLower(strings.TrimSuffix(host, "."))]
}

// guardOrigin refuses changes that a page of another origin asks for.
func guardOrigin(next http.Handler) http.Handler {
	p := http.NewCrossOriginProtection()
	p.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeProblem(w, http.StatusForbidden, "request comes from a page of another origin")
	}))
	return p.Handler(next)
}

// authorize asks for the token. An open route goes without one for a peer on
// this machine.
func (s *Server) authorize(next http.Handler, open bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if open && fromLoopback(r) || s.token.matches(r) {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="gantry admin"`)
		writeProblem(w, http.StatusUnauthorized, "the admin token is missing or wrong")
	})
}

func fromLoopback(r *http.Request) bool {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && peer.Addr().Unmap().IsLoopback()
}
