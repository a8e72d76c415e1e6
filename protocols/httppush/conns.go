package httppush

import (
	"net"
	"net/http"
	"sync"
)

// conns counts the open connections and knows those that have not sent a
// request yet: shutting down must not wait for them.
type conns struct {
	max     int
	refused func()

	mu       sync.Mutex // covers what follows
	open     int
	fresh    map[net.Conn]struct{}
	draining bool
}

// state follows a connection; it is the server's ConnState.
func (c *conns) state(conn net.Conn, st http.ConnState) {
	c.mu.Lock()
	over, late := false, false
	switch st {
	case http.StateNew:
		c.open++
		c.fresh[conn] = struct{}{}
		over, late = c.open > c.max, c.draining
	case http.StateClosed, http.StateHijacked:
		c.open--
		delete(c.fresh, conn)
	default:
		delete(c.fresh, conn)
	}
	c.mu.Unlock()
	if over {
		c.refused()
	}
	if over || late {
		conn.Close()
	}
}

func (c *conns) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open
}

// drain closes the connections without a request, now and from now on.
func (c *conns) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	for conn := range c.fresh {
		conn.Close()
	}
}
