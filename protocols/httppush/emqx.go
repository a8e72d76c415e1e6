package httppush

import (
	"mime"
	"net/http"
	"strings"
	"time"

	"gantry/broker"
)

// publishJSON is POST /api/v5/publish.
func (s *Server) publishJSON(w http.ResponseWriter, r *http.Request) error {
	body, sh, err := s.readJSON(w, r)
	if err != nil {
		sh.release()
		return err
	}
	it, err := parsePublish(body, time.Now())
	if err != nil {
		sh.release()
		return err
	}
	d, err := s.publishItems(r, []item{it}, sh)
	if err != nil {
		return err
	}
	reason, ok := d.outcome(0)
	switch {
	case !ok:
		return s.unconfirmed()
	case !reason.OK():
		return refuse(reason, "%s", reason)
	case reason == broker.NoSubscribers:
		writeJSON(w, http.StatusAccepted, "application/json", resultOf(reason))
	default:
		writeJSON(w, http.StatusOK, "application/json", result{ID: newID()})
	}
	return nil
}

// publishBulk is POST /api/v5/publish/bulk. The answer has one element for each
// message, in order. Its status is that of the worst failure; without one 202
// when a message had no subscriber, else 200.
func (s *Server) publishBulk(w http.ResponseWriter, r *http.Request) error {
	body, sh, err := s.readJSON(w, r)
	if err != nil {
		sh.release()
		return err
	}
	items, err := parseBulk(body, time.Now())
	if err != nil {
		sh.release()
		return err
	}
	d, err := s.publishItems(r, items, sh)
	if err != nil {
		return err
	}
	status, results := s.bulkResults(d)
	if status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	writeJSON(w, status, "application/json", results)
	return nil
}

func (s *Server) bulkResults(d *delivery) (status int, results []result) {
	status = http.StatusOK
	results = make([]result, len(d.outcomes))
	for i := range results {
		reason, ok := d.outcome(i)
		if !ok {
			reason = s.unconfirmed().reason
		}
		if reason == broker.Success {
			results[i].ID = newID()
			continue
		}
		results[i] = resultOf(reason)
		status = max(status, codeOf(reason).status)
	}
	return status, results
}

// publishItems publishes the messages of one client.
func (s *Server) publishItems(r *http.Request, items []item, sh *share) (*delivery, error) {
	client, err := oneClient(items)
	if err != nil {
		sh.release()
		return nil, err
	}
	id, err := s.identify(r, client)
	if err != nil {
		sh.release()
		return nil, err
	}
	messages := make([]*broker.Message, len(items))
	for i := range items {
		messages[i] = items[i].message
	}
	return s.publish(r.Context(), id, messages, sh)
}

// oneClient returns the clientid of the messages. A request is authenticated
// once, so it speaks for one client.
func oneClient(items []item) (string, error) {
	for i := range items {
		if items[i].clientID != items[0].clientID {
			return "", refuse(broker.InvalidClientID, "message %d has another clientid than the first", i)
		}
	}
	return items[0].clientID, nil
}

// readJSON reads a body after it has checked all that is known before. The
// client is authenticated by the header first, though the body may name
// another client id: nobody else may make the gateway hold a body.
func (s *Server) readJSON(w http.ResponseWriter, r *http.Request) ([]byte, *share, error) {
	none := &share{budget: &s.bytes}
	if _, err := parseQuery(r); err != nil {
		return nil, none, err
	}
	types := r.Header.Values("Content-Type")
	if len(types) != 1 || !isJSON(types[0]) {
		return nil, none, fail(http.StatusUnsupportedMediaType, "Content-Type must be application/json in UTF-8")
	}
	id, err := s.identify(r, "")
	if err != nil {
		return nil, none, err
	}
	if err := s.admit(r, id); err != nil {
		return nil, none, err
	}
	return s.readBody(w, r)
}

func isJSON(contentType string) bool {
	mt, params, err := mime.ParseMediaType(contentType)
	if err != nil || mt != "application/json" {
		return false
	}
	charset, given := params["charset"]
	return !given || strings.EqualFold(charset, "utf-8")
}
