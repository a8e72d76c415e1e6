package ws

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func status(t *testing.T, request string) int {
	t.Helper()
	server, client := pair(t)
	_, err := io.WriteString(client, request)
	require.NoError(t, err)
	done := make(chan struct{})
	defer func() { <-done }()
	go func() {
		defer close(done)
		_, _ = server.Read(make([]byte, 1))
	}()
	res, err := http.ReadResponse(newReader(t, client), nil)
	require.NoError(t, err)
	require.NoError(t, client.(*net.TCPConn).CloseWrite())
	return res.StatusCode
}

func TestRequestsThatMislead(t *testing.T) {
	head := strings.TrimSuffix(request, "\r\n")
	require.Equal(t, http.StatusSwitchingProtocols, status(t, request))
	require.Equal(t, http.StatusForbidden, status(t, head+"Origin: http://evil.example\r\n\r\n"))
	require.Equal(t, http.StatusBadRequest, status(t, head+"Origin : http://evil.example\r\n\r\n"), "RFC 9112 section 5.1")
	require.Equal(t, http.StatusBadRequest, status(t, strings.Replace(request, ": mqtt", ": MQTT", 1)), "what is not offered may not be the answer")
}
