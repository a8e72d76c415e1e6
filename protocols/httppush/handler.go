package httppush

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"mime"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"gantry/broker"
)

// handler serves one method of one path. An error that it returns is the
// answer; it must not have written then.
type handler func(w http.ResponseWriter, r *http.Request) error

// endpoint is what a path has.
type endpoint struct {
	allow    string
	handlers map[string]handler
}

// find chooses by the path as it was sent. A http.ServeMux would redirect
// topics with empty levels to their cleaned path.
func (s *Server) find(escapedPath string) *endpoint {
	switch {
	case strings.HasPrefix(escapedPath, topicsPrefix):
		return &endpoint{"GET, HEAD, POST, PUT, OPTIONS", map[string]handler{
			http.MethodGet: s.readTopic, http.MethodHead: s.readTopic,
			http.MethodPost: s.publishRaw, http.MethodPut: s.publishRaw,
		}}
	case escapedPath == "/api/v5/publish":
		return &endpoint{"POST, OPTIONS", map[string]handler{http.MethodPost: s.publishJSON}}
	case escapedPath == "/api/v5/publish/bulk":
		return &endpoint{"POST, OPTIONS", map[string]handler{http.MethodPost: s.publishBulk}}
	}
	return nil
}

// serveHTTP counts, guards and answers one request.
func (s *Server) serveHTTP(rw http.ResponseWriter, r *http.Request) {
	w := &answerWriter{ResponseWriter: rw, timeout: s.cfg.WriteTimeout}
	if !s.enter() {
		writeFailure(w, refuse(broker.ShuttingDown, "the gateway is shutting down"))
		return
	}
	defer s.requests.Done()
	s.metrics.inFlight.Inc()
	defer s.metrics.inFlight.Dec()
	defer func() {
		if v := recover(); v != nil {
			s.log.Error("http request panicked, dropping its connection", "panic", v, "stack", string(debug.Stack()))
			panic(http.ErrAbortHandler)
		}
	}()
	// Also for a body that no handler reads: the server reads it before the
	// next request.
	_ = http.NewResponseController(rw).SetReadDeadline(time.Now().Add(s.cfg.BodyTimeout))
	if err := s.serveRequest(w, r); err != nil {
		f, ok := errors.AsType[*failure](err)
		if !ok {
			f = refuse(broker.Unspecified, "the request failed, see the log of the gateway")
			s.log.Error("http request", "err", err)
		}
		writeFailure(w, f)
	}
	s.metrics.requests.WithLabelValues(codeClass(w.status)).Inc()
}

func (s *Server) serveRequest(w http.ResponseWriter, r *http.Request) error {
	origin, err := s.guard.check(r)
	if err != nil {
		return err
	}
	if origin != "" {
		allowOrigin(w.Header(), origin)
	}
	e := s.find(r.URL.EscapedPath())
	if e == nil {
		return fail(http.StatusNotFound, "no such path")
	}
	if h := e.handlers[r.Method]; h != nil {
		return h(w, r)
	}
	if r.Method == http.MethodOptions {
		answerOptions(w, e.allow, origin)
		return nil
	}
	f := fail(http.StatusMethodNotAllowed, "this path allows %s", e.allow)
	f.allow = e.allow
	return f
}

// answerWriter remembers the status, and gives every write a deadline.
type answerWriter struct {
	http.ResponseWriter
	timeout time.Duration
	status  int
}

func (w *answerWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.deadline()
	w.ResponseWriter.WriteHeader(status)
}

func (w *answerWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	w.deadline()
	return w.ResponseWriter.Write(p)
}

func (w *answerWriter) deadline() {
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(w.timeout))
}

// Unwrap lets http.ResponseController find the connection.
func (w *answerWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// result is the body of a successful publish.
type result struct {
	ID         string `json:"id,omitempty"`
	ReasonCode int    `json:"reason_code,omitempty"`
	Message    string `json:"message,omitempty"`
}

func resultOf(r broker.Reason) result {
	c := codeOf(r)
	return result{ReasonCode: c.mqtt, Message: c.name}
}

// admit authenticates a client before its body is read.
func (s *Server) admit(r *http.Request, id *identity) error {
	e, err := s.sessions.acquire(r.Context(), id)
	if err != nil {
		return err
	}
	s.sessions.release(e)
	return nil
}

// publishRaw publishes the body under the topic of the path.
func (s *Server) publishRaw(w http.ResponseWriter, r *http.Request) error {
	m, err := rawMessage(r, time.Now())
	if err != nil {
		return err
	}
	id, err := s.identify(r, "")
	if err != nil {
		return err
	}
	if err := s.admit(r, id); err != nil {
		return err
	}
	body, sh, err := s.readBody(w, r)
	if err != nil {
		sh.release()
		return err
	}
	m.Payload = body
	qos := m.QoS // the message is the broker's once it is published
	d, err := s.publish(r.Context(), id, []*broker.Message{m}, sh)
	if err != nil {
		return err
	}
	reason, ok := d.outcome(0)
	if !ok {
		return s.unconfirmed()
	}
	if !reason.OK() {
		return refuse(reason, "%s", reason)
	}
	answer := result{ID: newID()}
	if reason == broker.NoSubscribers {
		answer = resultOf(reason)
		answer.ID = newID()
	}
	status := http.StatusOK
	if qos == 0 {
		status = http.StatusAccepted
	}
	writeJSON(w, status, "application/json", answer)
	return nil
}

// rawMessage makes the message of a raw publish, but for its payload.
func rawMessage(r *http.Request, now time.Time) (*broker.Message, error) {
	topic, err := topicOf(r.URL.EscapedPath())
	if err != nil {
		return nil, err
	}
	o, err := parseOptions(r)
	if err != nil {
		return nil, err
	}
	m := &broker.Message{Topic: topic, QoS: o.qos, Retain: o.retain, Time: now.UnixMilli()}
	expireAfter(m, o.expiry)
	types := r.Header.Values("Content-Type")
	if len(types) == 0 {
		return m, nil
	}
	if _, _, err := mime.ParseMediaType(types[0]); err != nil || len(types) > 1 {
		return nil, fail(http.StatusUnsupportedMediaType, "Content-Type must be one media type")
	}
	m.Properties = &broker.Properties{ContentType: types[0]}
	return m, nil
}

// readTopic answers with the retained value of the topic in the path.
func (s *Server) readTopic(w http.ResponseWriter, r *http.Request) error {
	topic, err := topicOf(r.URL.EscapedPath())
	if err != nil {
		return err
	}
	if _, err := parseQuery(r); err != nil {
		return err
	}
	id, err := s.identify(r, "")
	if err != nil {
		return err
	}
	m, reason, err := s.retained(r.Context(), id, topic)
	switch {
	case err != nil:
		return err
	case !reason.OK():
		return refuse(reason, "%s", reason)
	case m == nil:
		return fail(http.StatusNotFound, "the topic has no retained value")
	}
	h := w.Header()
	h.Set("Content-Type", contentType(m))
	h.Set("ETag", etag(m))
	h.Set("Cache-Control", "private, no-cache")
	// A client chose payload and type. A browser must not run it as a page.
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	// No modification time: seconds are too coarse to tell two values apart.
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(m.Payload))
	return nil
}

func (s *Server) retained(ctx context.Context, id *identity, topic string) (*broker.Message, broker.Reason, error) {
	for attempt := 1; ; attempt++ {
		e, err := s.sessions.acquire(ctx, id)
		if err != nil {
			return nil, broker.Success, err
		}
		m, reason := e.session.Retained(topic)
		s.sessions.release(e)
		if reason != broker.Closed {
			return m, reason, nil
		}
		s.sessions.discard(e)
		if attempt == sessionAttempts {
			return nil, reason, nil
		}
	}
}

func contentType(m *broker.Message) string {
	if p := m.Properties; p != nil {
		if _, _, err := mime.ParseMediaType(p.ContentType); err == nil {
			return p.ContentType
		}
	}
	return "application/octet-stream"
}

// etag is strong: it stands for payload, type and the time of acceptance.
func etag(m *broker.Message) string {
	sum := sha256.New()
	var t [8]byte
	binary.BigEndian.PutUint64(t[:], uint64(m.Time))
	sum.Write(t[:])
	sum.Write([]byte(contentType(m)))
	sum.Write([]byte{0})
	sum.Write(m.Payload)
	return `"` + hex.EncodeToString(sum.Sum(nil)[:16]) + `"`
}
