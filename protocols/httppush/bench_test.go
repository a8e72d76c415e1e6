package httppush

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"gantry/broker"
)

// BenchmarkRawPublish is one request through guard, session and broker, without
// the cost of net/http's connection.
func BenchmarkRawPublish(b *testing.B) {
	core, err := broker.New(context.Background(), broker.Config{Authenticate: users{}}, nullStore{}, nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	s, err := New(Config{Bind: "127.0.0.1:0"}, core, nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		s.sessions.close()
		_ = s.Close()
		_ = core.Close()
	}()
	body := strings.Repeat("x", 128)
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest(http.MethodPost, "/v1/topics/plant/7", strings.NewReader(body))
		r.RemoteAddr, r.Host = "127.0.0.1:1", "localhost"
		w := httptest.NewRecorder()
		s.serveHTTP(w, r)
		if w.Code != http.StatusOK {
			b.Fatal(w.Code, w.Body)
		}
	}
}

func BenchmarkParsePublish(b *testing.B) {
	body := []byte(strings.TrimSpace(fullForm))
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, err := parsePublish(body, testTime); err != nil {
			b.Fatal(err)
		}
	}
}
