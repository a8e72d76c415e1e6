package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// maxAnswer bounds what the client reads of one answer.
const maxAnswer = 64 << 20

// Client talks to the admin interface of a running gateway. It is safe for
// concurrent use.
type Client struct {
	base  string
	token string
	http  *http.Client
}

// APIError is an answer that is not a success. Problem.Status is the HTTP status.
type APIError struct{ Problem }

func (e *APIError) Error() string {
	if e.Detail == "" {
		return fmt.Sprintf("admin interface answered %d %s", e.Status, e.Title)
	}
	return fmt.Sprintf("admin interface answered %d %s: %s", e.Status, e.Title, e.Detail)
}

// NewClient returns a client for an address, host:port or a URL with http or
// https, and a token as [ReadToken] returns it. It does not connect yet.
func NewClient(addr, token string) (*Client, error) {
	if !strings.Contains(addr, "://") {
		addr = "http://" + addr
	}
	u, err := url.Parse(addr)
	if err != nil {
		return nil, fmt.Errorf("admin address: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("admin address %q needs the form host:port or http(s)://host:port", addr)
	}
	return &Client{
		base:  u.Scheme + "://" + u.Host + strings.TrimRight(u.EscapedPath(), "/"),
		token: token,
		http:  &http.Client{Timeout: 30 * time.Second, CheckRedirect: refuseRedirect},
	}, nil
}

// refuseRedirect: the interface never redirects, and a token must not follow.
func refuseRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// ReadToken reads a token file. An error that satisfies errors.Is with
// os.ErrNotExist means that no gateway has run with this file yet.
func ReadToken(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read admin token: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if err := validToken(token); err != nil {
		return "", fmt.Errorf("admin token file %s: %w", path, err)
	}
	return token, nil
}

// Status returns the state of the whole gateway.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	return get[*Status](ctx, c, "/api/v1/status")
}

// Ready reports whether the gateway takes messages, and why not.
func (c *Client) Ready(ctx context.Context) (*Readiness, error) {
	res, err := c.do(ctx, http.MethodGet, "/readyz")
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusServiceUnavailable {
		return nil, apiError(res)
	}
	return decode[*Readiness](res)
}

// Bridges returns the state of every bridge, in configuration order.
func (c *Client) Bridges(ctx context.Context) ([]Bridge, error) {
	return get[[]Bridge](ctx, c, "/api/v1/bridges")
}

// Peek returns the first n records of a bridge's queue, or of its dead letters,
// without taking them out. 0 means the server's default of 10.
func (c *Client) Peek(ctx context.Context, bridge string, n int, dead bool) ([]Record, error) {
	q := url.Values{}
	if n > 0 {
		q.Set("n", strconv.Itoa(n))
	}
	if dead {
		q.Set("dead", "true")
	}
	return get[[]Record](ctx, c, "/api/v1/bridges/"+segment(bridge)+"/peek?"+q.Encode())
}

// PauseBridge makes a bridge stop sending until ResumeBridge or a restart of
// the gateway; what arrives meanwhile is queued. A bridge that there is not
// gives an [APIError] with status 404.
func (c *Client) PauseBridge(ctx context.Context, bridge string) error {
	return c.change(ctx, http.MethodPost, "/api/v1/bridges/"+segment(bridge)+"/pause")
}

// ResumeBridge ends a pause, and makes a bridge that waits for its next try do
// that at once.
func (c *Client) ResumeBridge(ctx context.Context, bridge string) error {
	return c.change(ctx, http.MethodPost, "/api/v1/bridges/"+segment(bridge)+"/resume")
}

// Clients returns every session, by client id. It asks page by page.
func (c *Client) Clients(ctx context.Context) ([]Session, error) {
	var all []Session
	for after := ""; ; {
		page, err := get[*SessionPage](ctx, c, "/api/v1/clients?after="+url.QueryEscape(after))
		if err != nil {
			return nil, err
		}
		all = append(all, page.Clients...)
		if page.Next == "" {
			return all, nil
		}
		if page.Next <= after {
			return nil, errors.New("admin interface answered a page that leads backwards")
		}
		after = page.Next
	}
}

// Kick ends a client's connection. A client without one gives an [APIError]
// with status 404.
func (c *Client) Kick(ctx context.Context, clientID string) error {
	return c.change(ctx, http.MethodDelete, "/api/v1/clients/"+segment(clientID))
}

// change asks for something that has no answer but that it was done.
func (c *Client) change(ctx context.Context, method, path string) error {
	res, err := c.do(ctx, method, path)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusNoContent {
		return apiError(res)
	}
	return nil
}

// segment escapes one path segment. Dots are escaped too, because "." and ".."
// as a segment would be taken for a relative path.
func segment(s string) string {
	return strings.ReplaceAll(url.PathEscape(s), ".", "%2E")
}

func (c *Client) do(ctx context.Context, method, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, http.NoBody)
	if err != nil {
		return nil, err
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	return c.http.Do(req)
}

func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	var none T
	res, err := c.do(ctx, http.MethodGet, path)
	if err != nil {
		return none, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return none, apiError(res)
	}
	return decode[T](res)
}

func decode[T any](res *http.Response) (T, error) {
	var v T
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(&v); err != nil {
		return v, fmt.Errorf("read answer of the admin interface: %w", err)
	}
	return v, nil
}

// apiError reads the problem of a failed request; an answer without one, from
// something that is not a gateway, still gets its status.
func apiError(res *http.Response) error {
	var p Problem
	if err := json.NewDecoder(io.LimitReader(res.Body, 64<<10)).Decode(&p); err != nil || p.Status != res.StatusCode {
		p = Problem{Title: http.StatusText(res.StatusCode), Status: res.StatusCode}
	}
	return &APIError{Problem: p}
}
