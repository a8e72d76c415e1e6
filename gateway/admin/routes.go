package admin

import (
	_ "embed"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

//go:embed openapi.yaml
var openAPI []byte

// route is one operation. The table is the only place where they are added; a
// test compares it with openapi.yaml.
type route struct {
	method, path string
	handler      http.Handler
	// open routes answer to the machine itself without a token, so that probes
	// and scrapers on it need no secret.
	open bool
}

func (s *Server) routes(gatherer prometheus.Gatherer) []route {
	metrics := promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{
		ErrorHandling:       promhttp.ContinueOnError, // one broken collector must not hide the others
		MaxRequestsInFlight: 4,
	})
	return []route{
		{http.MethodGet, "/healthz", http.HandlerFunc(s.health), true},
		{http.MethodGet, "/readyz", http.HandlerFunc(s.ready), true},
		{http.MethodGet, "/metrics", metrics, true},
		{http.MethodGet, "/api/v1/openapi.yaml", http.HandlerFunc(s.openapi), false},
		{http.MethodGet, "/api/v1/status", http.HandlerFunc(s.status), false},
		{http.MethodGet, "/api/v1/bridges", http.HandlerFunc(s.bridges), false},
		{http.MethodGet, "/api/v1/bridges/{name}/peek", http.HandlerFunc(s.peek), false},
		{http.MethodPost, "/api/v1/bridges/{name}/pause", s.pauseBridge(true), false},
		{http.MethodPost, "/api/v1/bridges/{name}/resume", s.pauseBridge(false), false},
		{http.MethodGet, "/api/v1/delayed", http.HandlerFunc(s.delayed), false},
		{http.MethodDelete, "/api/v1/delayed/{id}", http.HandlerFunc(s.deleteDelayed), false},
		{http.MethodGet, "/api/v1/clients", http.HandlerFunc(s.clients), false},
		{http.MethodDelete, "/api/v1/clients/{id}", http.HandlerFunc(s.kick), false},
	}
}

// handler puts the guards around the routes: host, origin, then token.
func (s *Server) handler(gatherer prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	methods := make(map[string]string) // path: methods that it allows
	for _, r := range s.routes(gatherer) {
		h := r.handler
		mux.Handle(r.method+" "+r.path, s.authorize(h, r.open))
		if allow := methods[r.path]; allow != "" {
			methods[r.path] = allow + ", " + r.method
			continue
		}
		methods[r.path] = r.method
		if r.method == http.MethodGet {
			methods[r.path] += ", " + http.MethodHead // the mux serves HEAD with GET
		}
	}
	for path, allow := range methods {
		mux.Handle(path, s.authorize(methodNotAllowed(allow), false))
	}
	mux.Handle("/", s.authorize(http.HandlerFunc(notFound), false))
	return s.guardHost(guardOrigin(mux))
}

func methodNotAllowed(allow string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Allow", allow)
		writeProblem(w, http.StatusMethodNotAllowed, "this path allows "+allow)
	})
}

func notFound(w http.ResponseWriter, _ *http.Request) {
	writeProblem(w, http.StatusNotFound, "no such path; GET /api/v1/openapi.yaml lists them")
}
