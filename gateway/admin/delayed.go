package admin

import (
	"context"
	"net/http"
	"strconv"
	"time"
)

// Delayed is one entry of GET /api/v1/delayed: a message that waits to be
// published later.
type Delayed struct {
	ID       uint64    `json:"id"` // below 2^53
	Topic    string    `json:"topic"`
	ClientID string    `json:"client_id,omitempty"`
	Due      time.Time `json:"due"`
	Size     int       `json:"size"` // bytes of the payload
	QoS      int       `json:"qos"`
	Retain   bool      `json:"retain"`
	Attempts int       `json:"attempts"`         // to publish it, that failed
	Reason   string    `json:"reason,omitempty"` // of the last one
}

// DelayedPage is the answer of GET /api/v1/delayed.
type DelayedPage struct {
	Delayed []Delayed `json:"delayed"`        // by id
	Next    uint64    `json:"next,omitempty"` // the value of after= for the next page
}

func (s *Server) delayed(w http.ResponseWriter, r *http.Request) {
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
	var after uint64
	if q.Has("after") {
		if after, err = strconv.ParseUint(q.Get("after"), 10, 64); err != nil {
			writeProblem(w, http.StatusBadRequest, "after must be the id of a message")
			return
		}
	}
	page := DelayedPage{Delayed: s.deps.Delayed(after, limit+1)}
	if len(page.Delayed) > limit {
		page.Delayed = page.Delayed[:limit]
		page.Next = page.Delayed[limit-1].ID
	}
	if page.Delayed == nil {
		page.Delayed = []Delayed{}
	}
	writeJSON(w, http.StatusOK, page)
}

func (s *Server) deleteDelayed(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	if err != nil {
		writeProblem(w, http.StatusBadRequest, "the id of a message is a number")
		return
	}
	found, err := s.deps.DeleteDelayed(r.Context(), id)
	switch {
	case err != nil:
		s.log.Warn("delete a delayed message", "id", id, "err", err)
		writeProblem(w, http.StatusInternalServerError, "the store did not take it, see the log")
	case !found:
		writeProblem(w, http.StatusNotFound, "no message of that id waits to be published")
	default:
		s.log.Info("delayed message deleted by the operator", "id", id)
		w.WriteHeader(http.StatusNoContent)
	}
}

// Delayed returns up to limit messages that wait to be published later, by id
// and only those above after. Next is 0 when there are no more.
func (c *Client) Delayed(ctx context.Context, after uint64, limit int) (*DelayedPage, error) {
	return get[*DelayedPage](ctx, c, "/api/v1/delayed?after="+strconv.FormatUint(after, 10)+"&limit="+strconv.Itoa(limit))
}

// DeleteDelayed deletes a message that waits to be published later. One that
// does not wait, or is being published, gives an [APIError] with status 404.
func (c *Client) DeleteDelayed(ctx context.Context, id uint64) error {
	return c.change(ctx, http.MethodDelete, "/api/v1/delayed/"+strconv.FormatUint(id, 10))
}
