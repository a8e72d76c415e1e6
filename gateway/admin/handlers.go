package admin

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"unicode/utf8"
)

const (
	defaultPeek  = 10
	maxPeek      = 100
	previewBytes = 1024
	defaultPage  = 1000
	maxPage      = 10000
)

func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintln(w, "ok")
}

func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	problems := s.deps.Ready(r.Context())
	status := http.StatusOK
	if len(problems) > 0 {
		status = http.StatusServiceUnavailable
	}
	writeJSON(w, status, Readiness{Ready: len(problems) == 0, Problems: problems})
}

func (s *Server) openapi(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/yaml")
	w.Write(openAPI)
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	st := s.deps.Status(r.Context())
	st.Alarms = s.deps.Alarms.List()
	st.Process = process()
	if st.Listeners == nil {
		st.Listeners = []Listener{}
	}
	if st.Connections == nil {
		st.Connections = map[string]int{}
	}
	if st.Messages.Dropped == nil {
		st.Messages.Dropped = map[string]uint64{}
	}
	writeJSON(w, http.StatusOK, st)
}

func process() Process {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return Process{MemoryBytes: m.Sys - m.HeapReleased, Goroutines: runtime.NumGoroutine()}
}

func (s *Server) bridges(w http.ResponseWriter, _ *http.Request) {
	all := s.deps.Bridges()
	if all == nil {
		all = []Bridge{}
	}
	for i := range all {
		if all[i].Dropped == nil {
			all[i].Dropped = map[string]uint64{}
		}
	}
	writeJSON(w, http.StatusOK, all)
}

func (s *Server) peek(w http.ResponseWriter, r *http.Request) {
	q, err := query(r, "n", "dead")
	if err != nil {
		writeProblem(w, http.StatusBadRequest, err.Error())
		return
	}
	n, err := number(q, "n", defaultPeek, maxPeek)
	if err != nil {
		writeProblem(w, http.StatusBadRequest, err.Error())
		return
	}
	dead, err := strconv.ParseBool(cmp.Or(q.Get("dead"), "false"))
	if err != nil {
		writeProblem(w, http.StatusBadRequest, "dead must be true or false")
		return
	}
	records, err := s.deps.Peek(r.Context(), r.PathValue("name"), n, dead)
	switch {
	case errors.Is(err, ErrUnknownBridge):
		writeProblem(w, http.StatusNotFound, err.Error())
		return
	case err != nil:
		s.log.Warn("peek into a queue", "bridge", r.PathValue("name"), "err", err)
		writeProblem(w, http.StatusInternalServerError, "the queue cannot be read, see the log")
		return
	}
	answer := make([]Record, 0, len(records))
	for i := range records[:min(n, len(records))] {
		answer = append(answer, Preview(&records[i]))
	}
	writeJSON(w, http.StatusOK, answer)
}

func (s *Server) pauseBridge(pause bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("name")
		if err := s.deps.PauseBridge(name, pause); err != nil {
			writeProblem(w, http.StatusNotFound, err.Error())
			return
		}
		s.log.Info("bridge changed by the operator", "bridge", name, "paused", pause)
		w.WriteHeader(http.StatusNoContent)
	})
}

// Preview returns a queued record as the API shows it, with the start of its payload: as text when it is text, cut between
// characters, and in base64 otherwise.
func Preview(q *QueuedRecord) Record {
	rec := Record{
		Seq: q.Seq, Time: q.Time, Topic: q.Topic, Key: q.Key, Size: len(q.Payload), Reason: q.Reason,
		Truncated: len(q.Payload) > previewBytes,
	}
	head := q.Payload[:min(len(q.Payload), previewBytes)]
	if rec.Truncated {
		if text := wholeRunes(head); utf8.Valid(text) {
			head = text
		}
	}
	if utf8.Valid(head) {
		rec.Payload, rec.Encoding = string(head), EncodingUTF8
		return rec
	}
	rec.Payload, rec.Encoding = base64.StdEncoding.EncodeToString(head), EncodingBase64
	return rec
}

// wholeRunes cuts a character that the end of b splits.
func wholeRunes(b []byte) []byte {
	for i := 1; i < utf8.UTFMax && i <= len(b); i++ {
		if utf8.RuneStart(b[len(b)-i]) {
			if !utf8.FullRune(b[len(b)-i:]) {
				return b[:len(b)-i]
			}
			return b
		}
	}
	return b
}

func (s *Server) clients(w http.ResponseWriter, r *http.Request) {
	q, err := query(r, "limit", "after")
	if err != nil {
		writeProblem(w, http.StatusBadRequest, err.Error())
		return
	}
	limit, err := number(q, "limit", defaultPage, maxPage)
	if err != nil {
		writeProblem(w, http.StatusBadRequest, err.Error())
		return
	}
	writeJSON(w, http.StatusOK, page(s.deps.Sessions(), q.Get("after"), limit))
}

// page returns the sessions behind a client id, so that a client that comes or
// goes between two pages shifts nobody else.
func page(all []Session, after string, limit int) SessionPage {
	all = slices.DeleteFunc(all, func(x Session) bool { return x.ClientID <= after })
	slices.SortFunc(all, func(x, y Session) int { return cmp.Compare(x.ClientID, y.ClientID) })
	p := SessionPage{Clients: all}
	if len(all) > limit {
		p.Clients = all[:limit]
		p.Next = p.Clients[limit-1].ClientID
	}
	if p.Clients == nil {
		p.Clients = []Session{}
	}
	return p
}

func (s *Server) kick(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if !s.deps.Kick(id) {
		writeProblem(w, http.StatusNotFound, "no connected client of that id")
		return
	}
	s.log.Info("client kicked by the operator", "client", id)
	w.WriteHeader(http.StatusNoContent)
}

// query parses the query strictly: a misspelt parameter is an error, not a
// default.
func query(r *http.Request, known ...string) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, errors.New("query is not well formed")
	}
	for name, values := range q {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("unknown parameter %q", name)
		}
		if len(values) > 1 {
			return nil, fmt.Errorf("parameter %q is given more than once", name)
		}
	}
	return q, nil
}

func number(q url.Values, name string, otherwise, most int) (int, error) {
	if !q.Has(name) {
		return otherwise, nil
	}
	n, err := strconv.Atoi(q.Get(name))
	if err != nil || n < 1 || n > most {
		return 0, fmt.Errorf("%s must be a number from 1 to %d", name, most)
	}
	return n, nil
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	write(w, status, "application/json", v)
}

func writeProblem(w http.ResponseWriter, status int, detail string) {
	write(w, status, "application/problem+json", Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail})
}

func write(w http.ResponseWriter, status int, contentType string, v any) {
	body, err := json.Marshal(v)
	if err != nil { // a float that is not a number: a bug of whoever filled the struct
		status, contentType = http.StatusInternalServerError, "application/problem+json"
		body = []byte(`{"type":"about:blank","title":"Internal Server Error","status":500}`)
	}
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)+1))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	w.Write(append(body, '\n'))
}
