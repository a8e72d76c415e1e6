//go:build unix

package e2e

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/conformance/servers"
)

// page is a web page with MQTT.js, on an origin of its own.
type page struct {
	*httptest.Server
	asked    atomic.Bool // for the script of the page
	outcomes chan string
}

// servePage serves testdata/page.html with the MQTT.js that npm has fetched.
func servePage(t *testing.T) *page {
	t.Helper()
	_, modules := servers.Node(t, servers.MQTTJS)
	p := &page{outcomes: make(chan string, 10)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, "testdata/page.html") })
	mux.HandleFunc("GET /mqtt.js", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, filepath.Join(modules, "mqtt", "dist", "mqtt.min.js"))
	})
	mux.HandleFunc("GET /page.js", func(w http.ResponseWriter, r *http.Request) {
		p.asked.Store(true)
		http.ServeFile(w, r, "testdata/page.js")
	})
	mux.HandleFunc("POST /outcome", func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if err != nil {
			text = []byte(err.Error())
		}
		p.outcomes <- string(text)
	})
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

// open shows the page in a browser and returns what it says in the end.
func (p *page) open(t *testing.T, broker string) string {
	t.Helper()
	p.asked.Store(false)
	servers.Browser(t, p.URL+"/?broker="+url.QueryEscape(broker), func(context.Context) error {
		if !p.asked.Load() {
			return errors.New("the page has not been asked for")
		}
		return nil
	})
	select {
	case outcome := <-p.outcomes:
		return outcome
	case <-time.After(2 * patience):
		t.Fatal("the page says nothing")
		return ""
	}
}

// A page in a real browser: of an allowed origin it does what clients do, of
// another one it does not connect.
func TestBrowser(t *testing.T) {
	t.Parallel()
	servers.Tool(t, "chromium", "chromium-browser")
	allowed, foreign := servePage(t), servePage(t)
	d := openDoors(t, "", allowed.URL)
	brokers := map[string]string{"ws": "ws://" + d.ws + "/mqtt", "wss": "wss://" + d.wss + "/mqtt"}
	if testing.Short() {
		delete(brokers, "ws")
	}
	for name, broker := range brokers {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, "ok", allowed.open(t, broker))
			require.Equal(t, "not connected", foreign.open(t, broker), "the origin is not in the list")
		})
	}
	t.Run("rebound name", func(t *testing.T) {
		// A page may give its own name the gateway's address; its origin stays its own.
		_, port, err := net.SplitHostPort(d.ws)
		require.NoError(t, err)
		require.Equal(t, "not connected", foreign.open(t, "ws://rebound.localhost:"+port+"/mqtt"))
	})
}
