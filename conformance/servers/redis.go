//go:build unix

package servers

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"gantry/conformance/standin"
)

// RedisServer is a Redis of one test.
type RedisServer struct {
	*Process
	// Addr is host:port.
	Addr string
}

// Redis starts redis-server with an append-only file in Dir, so that an answered
// write is there after Kill and Restart. Args are added to its command line, such
// as "--maxmemory", "64mb".
func Redis(t testing.TB, args ...string) *RedisServer {
	t.Helper()
	program := Tool(t, "redis-server")
	port, err := standin.FreePort()
	if err != nil {
		t.Fatalf("start redis-server: %v", err)
	}
	dir, addr := t.TempDir(), standin.Loopback(port)
	argv := append([]string{
		program,
		"--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--dir", dir,
		"--save", "", "--appendonly", "yes",
	}, args...)
	probe := func(ctx context.Context) error { return exchange(ctx, addr, "PING\r\n", isPong) }
	return &RedisServer{Process: launch(t, "redis-server", dir, argv, probe), Addr: addr}
}

// isPong accepts the refusal of a server that asks for a password, but not
// LOADING, the answer of one that still reads its data.
func isPong(answer []byte) error {
	if strings.HasPrefix(string(answer), "+PONG") || strings.HasPrefix(string(answer), "-NOAUTH") {
		return nil
	}
	return fmt.Errorf("answer to PING is %q", answer)
}
