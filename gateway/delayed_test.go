package gateway

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/gateway/admin"
)

// coapPublish sends a confirmable PUT below /ps and returns the code of the answer.
func coapPublish(t *testing.T, g *Gateway, path ...string) byte {
	t.Helper()
	conn, err := net.Dial("udp", g.Addrs()["udp"].String())
	require.NoError(t, err)
	defer conn.Close()
	request := "\x40\x03\x00\x01\xb2ps"
	for _, p := range path {
		require.Less(t, len(p), 13)
		request += string([]byte{byte(len(p))}) + p
	}
	_, err = io.WriteString(conn, request+"\xff1")
	require.NoError(t, err)
	answer := make([]byte, 100)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	_, err = conn.Read(answer)
	require.NoError(t, err)
	return answer[1]
}

// mqttPublish sends a QoS 1 PUBLISH of version 5 and returns the reason of its PUBACK.
func mqttPublish(t *testing.T, g *Gateway, topic string) byte {
	t.Helper()
	conn, err := net.Dial("tcp", g.Addrs()["tcp"].String())
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetDeadline(time.Now().Add(patience)))
	_, err = io.WriteString(conn, "\x10\x11\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x04mqtt")
	require.NoError(t, err)
	head := make([]byte, 2)
	_, err = io.ReadFull(conn, head)
	require.NoError(t, err)
	_, err = io.CopyN(io.Discard, conn, int64(head[1]))
	require.NoError(t, err)
	body := "\x00" + string([]byte{byte(len(topic))}) + topic + "\x00\x01\x00x"
	_, err = io.WriteString(conn, "\x32"+string([]byte{byte(len(body))})+body)
	require.NoError(t, err)
	_, err = io.ReadFull(conn, head)
	require.NoError(t, err)
	require.Equal(t, byte(0x40), head[0], "PUBACK")
	rest := make([]byte, head[1])
	_, err = io.ReadFull(conn, rest)
	require.NoError(t, err)
	if len(rest) < 3 {
		return 0
	}
	return rest[2]
}

// Every protocol can delay, is told what is wrong, and what it was promised
// comes after a restart.
func TestDelayedOverEveryProtocol(t *testing.T) {
	c := testConfig(t)
	g, stop := start(t, c)
	require.Equal(t, http.StatusOK, post(t, g, "$delayed/2/plant/http", "h"))
	require.Equal(t, byte(2<<5|4), coapPublish(t, g, "$delayed", "2", "plant", "coap"))
	require.Equal(t, byte(0), mqttPublish(t, g, "$delayed/2/plant/mqtt"))
	require.Equal(t, http.StatusBadRequest, post(t, g, "$delayed/soon/plant/http", "h"))
	require.Equal(t, byte(4<<5), coapPublish(t, g, "$delayed", "soon", "plant"))
	require.Equal(t, byte(0x90), mqttPublish(t, g, "$delayed/soon/plant"))
	require.Equal(t, http.StatusOK, post(t, g, "$delayed/3000/plant/late", "h"))

	op := operator(t, g, c)
	page, err := op.Delayed(t.Context(), 0, 100)
	require.NoError(t, err)
	require.Len(t, page.Delayed, 4)
	require.Zero(t, page.Next)
	last := page.Delayed[3]
	require.Equal(t, "plant/late", last.Topic)
	require.InDelta(t, 3000, time.Until(last.Due).Seconds(), 60)
	require.True(t, last.Retain)
	require.Equal(t, []int{1, 1}, []int{last.Size, last.QoS})
	require.NotEmpty(t, last.ClientID)
	stop()

	g, _ = start(t, c)
	op = operator(t, g, c)
	var records []admin.Record
	require.Eventually(t, func() bool {
		records, err = op.Peek(t.Context(), "cloud", 10, false)
		return err == nil && len(records) == 3
	}, 20*time.Second, 20*time.Millisecond)
	var got []string
	for _, r := range records {
		got = append(got, fmt.Sprint(r.Key != "", " ", r.Topic, " ", r.Payload))
	}
	require.ElementsMatch(t, []string{"true plant h", "true plant 1", "true plant x"}, got)
	require.Eventually(t, func() bool {
		status, err := op.Status(t.Context())
		return err == nil && status.Delayed == 1
	}, 10*time.Second, 10*time.Millisecond)
	require.NoError(t, op.DeleteDelayed(t.Context(), last.ID))
	problem, ok := errors.AsType[*admin.APIError](op.DeleteDelayed(t.Context(), last.ID))
	require.True(t, ok)
	require.Equal(t, http.StatusNotFound, problem.Status)
}

func TestDelayedLimitsAreConfigured(t *testing.T) {
	c := testConfig(t)
	c.Broker.Delayed.MaxMessages = 1
	g, stop := start(t, c)
	require.Equal(t, http.StatusOK, post(t, g, "$delayed/3000/a", "x"))
	require.Equal(t, http.StatusTooManyRequests, post(t, g, "$delayed/3000/a", "x"))
	stop() // the watch belongs to one goroutine
	g.watch.look(time.Now())
	var names []string
	for _, a := range g.alarms.List() {
		names = append(names, a.Name)
	}
	require.Equal(t, []string{"delayed_full"}, names)

	c.Broker.Delayed.MaxMessages = 0
	g, _ = start(t, c)
	require.Equal(t, byte(0x83), mqttPublish(t, g, "$delayed/3000/a"))
	require.Equal(t, http.StatusOK, post(t, g, strings.TrimPrefix("$delayed/3000/a", "$delayed/3000/"), "x"))
}

// A bridge whose queue is full holds a delayed message up, and the operator
// sees it.
func TestDelayedIsHeldByAFullBridge(t *testing.T) {
	c := testConfig(t)
	g, stop := start(t, c)
	payload := strings.Repeat("x", 10_000)
	require.Equal(t, http.StatusOK, post(t, g, "$delayed/1/plant/late", payload))
	for range 60 {
		post(t, g, "plant/1", payload)
	}
	op := operator(t, g, c)
	require.Eventually(t, func() bool {
		page, err := op.Delayed(t.Context(), 0, 10)
		return err == nil && len(page.Delayed) == 1 && page.Delayed[0].Attempts > 0 && page.Delayed[0].Reason != ""
	}, 20*time.Second, 20*time.Millisecond)
	stop()
	g.watch.look(time.Now())
	var names []string
	for _, a := range g.alarms.List() {
		names = append(names, a.Name)
	}
	require.Contains(t, names, "delayed_held")
}
