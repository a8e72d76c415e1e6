package httppush

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"gantry/broker"
)

// failure is why a request is refused: a status with a text for the client,
// and the Reason where the broker gave one.
type failure struct {
	status    int
	reason    broker.Reason
	hasReason bool
	detail    string
	allow     string // the methods that the path has, with 405
}

func (f *failure) Error() string { return f.detail }

func fail(status int, format string, args ...any) *failure {
	return &failure{status: status, detail: fmt.Sprintf(format, args...)}
}

func badRequest(format string, args ...any) *failure {
	return fail(http.StatusBadRequest, format, args...)
}

// refuse is a failure for a Reason that is not OK.
func refuse(r broker.Reason, format string, args ...any) *failure {
	return &failure{status: codeOf(r).status, reason: r, hasReason: true, detail: fmt.Sprintf(format, args...)}
}

// problem is the body of an error answer: the members of RFC 9457, and those
// of EMQX's errors, so that clients of both kinds find what they look for.
type problem struct {
	Type       string `json:"type"`
	Title      string `json:"title"`
	Status     int    `json:"status"`
	Detail     string `json:"detail"`
	ReasonCode int    `json:"reason_code,omitempty"`
	Code       string `json:"code"`
	Message    string `json:"message"`
}

func (f *failure) problem() problem {
	p := problem{Type: "about:blank", Title: http.StatusText(f.status), Status: f.status, Detail: f.detail, Code: codeName(f.status), Message: f.detail}
	if f.hasReason {
		c := codeOf(f.reason)
		p.ReasonCode, p.Message = c.mqtt, c.name
	}
	return p
}

// codeName is the status as EMQX spells its error codes: BAD_REQUEST.
func codeName(status int) string {
	return strings.ToUpper(strings.NewReplacer(" ", "_", "-", "_").Replace(http.StatusText(status)))
}

// retryAfter is when a repeat makes sense, in seconds; 0 = not by waiting.
func (f *failure) retryAfter() int {
	switch {
	case f.hasReason && f.reason == broker.ShuttingDown:
		return 5
	case f.status == http.StatusTooManyRequests, f.status == http.StatusServiceUnavailable:
		return 1
	}
	return 0
}

func writeFailure(w http.ResponseWriter, f *failure) {
	h := w.Header()
	if s := f.retryAfter(); s > 0 {
		h.Set("Retry-After", strconv.Itoa(s))
	}
	if f.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Basic realm="gantry", charset="UTF-8"`)
	}
	if f.allow != "" {
		h.Set("Allow", f.allow)
	}
	writeJSON(w, f.status, "application/problem+json", f.problem())
}

func writeJSON(w http.ResponseWriter, status int, contentType string, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic("BUG: answer cannot be encoded: " + err.Error())
	}
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that is gone gets no answer
}
