package mqtt

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	paho3 "github.com/eclipse/paho.mqtt.golang"
	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	"gantry/broker"
	"gantry/protocols/mqtt/wire"
	"gantry/protocols/mqtt/ws"
)

// The WebSocket transport under the real server, with clients that send bytes.

func newWSRig(t testing.TB, cfg Config, wc ws.Config) *rig {
	t.Helper()
	ln, err := Listen("127.0.0.1:0")
	require.NoError(t, err)
	l, err := ws.New(ln, wc, nil, nil)
	require.NoError(t, err)
	return newRigOn(t, l, cfg, broker.Config{})
}

// wsPeer is a client that sends and expects frames.
type wsPeer struct {
	t  testing.TB
	nc net.Conn
	r  *bufio.Reader
}

const wsRequest = "GET /mqtt HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"

func (r *rig) wsRequest(request string) (*wsPeer, *http.Response) {
	r.t.Helper()
	nc, err := net.Dial("tcp", r.srv.Addr().String())
	require.NoError(r.t, err)
	r.t.Cleanup(func() { _ = nc.Close() })
	require.NoError(r.t, nc.SetDeadline(time.Now().Add(2*patience)))
	_, err = io.WriteString(nc, request)
	require.NoError(r.t, err)
	p := &wsPeer{r.t, nc, bufio.NewReader(nc)}
	res, err := http.ReadResponse(p.r, nil)
	require.NoError(r.t, err)
	return p, res
}

// wsDial opens a WebSocket.
func (r *rig) wsDial() *wsPeer {
	r.t.Helper()
	p, res := r.wsRequest(wsRequest)
	require.Equal(r.t, http.StatusSwitchingProtocols, res.StatusCode)
	return p
}

// wsConnect opens a WebSocket and an MQTT session on it.
func (r *rig) wsConnect(v wire.Version, id string, rest ...string) *wsPeer {
	r.t.Helper()
	p := r.wsDial()
	p.send(0x82, connectPacket(r.t, v, id, 2, rest...))
	op, payload := p.frame()
	require.Equal(r.t, byte(0x82), op)
	require.Equal(r.t, byte(0x20), payload[0])
	require.Zero(r.t, payload[3], "refused: % x", payload)
	return p
}

// wsFrame builds a masked frame.
func wsFrame(first byte, payload []byte) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n <= 0xffff:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	key := []byte{0xa1, 0x5b, 0x00, 0xff}
	b = append(b, key...)
	for i, c := range payload {
		b = append(b, c^key[i%4])
	}
	return b
}

func (p *wsPeer) write(b []byte) {
	p.t.Helper()
	_, err := p.nc.Write(b)
	require.NoError(p.t, err)
}

func (p *wsPeer) send(first byte, payload []byte) {
	p.t.Helper()
	p.write(wsFrame(first, payload))
}

// frame reads one frame of the server.
func (p *wsPeer) frame() (first byte, payload []byte) {
	p.t.Helper()
	head := make([]byte, 2)
	_, err := io.ReadFull(p.r, head)
	require.NoError(p.t, err)
	n := uint64(head[1])
	require.Less(p.t, n, uint64(128), "a frame of a server is not masked")
	switch n {
	case 126:
		more := make([]byte, 2)
		_, err = io.ReadFull(p.r, more)
		n = uint64(binary.BigEndian.Uint16(more))
	case 127:
		more := make([]byte, 8)
		_, err = io.ReadFull(p.r, more)
		n = binary.BigEndian.Uint64(more)
	}
	require.NoError(p.t, err)
	payload = make([]byte, n)
	_, err = io.ReadFull(p.r, payload)
	require.NoError(p.t, err)
	return head[0], payload
}

// expect reads one binary frame with exactly the packets given as hex.
func (p *wsPeer) expect(packets string) {
	p.t.Helper()
	first, payload := p.frame()
	require.Equal(p.t, byte(0x82), first)
	require.Equal(p.t, hex.EncodeToString(raw(p.t, packets)), hex.EncodeToString(payload))
}

// expectClose expects a Close frame with a code and the end behind it.
func (p *wsPeer) expectClose(code int) {
	p.t.Helper()
	first, payload := p.frame()
	require.Equal(p.t, byte(0x88), first)
	require.GreaterOrEqual(p.t, len(payload), 2)
	require.Equal(p.t, code, int(binary.BigEndian.Uint16(payload)))
	_, err := p.r.ReadByte()
	require.ErrorIs(p.t, err, io.EOF)
}

func TestWebSocketRequests(t *testing.T) {
	host, err := os.Hostname()
	require.NoError(t, err)
	r := newWSRig(t, Config{}, ws.Config{Origins: []string{"https://panel.example", "http://other.example:8080"}})
	without := func(header string) string {
		i := strings.Index(wsRequest, header+":")
		return wsRequest[:i] + wsRequest[i+strings.Index(wsRequest[i:], "\n")+1:]
	}
	with := func(header string) string { return strings.Replace(wsRequest, "\r\n\r\n", "\r\n"+header+"\r\n\r\n", 1) }
	from := func(host, origin string) string {
		return strings.Replace(with("Origin: "+origin), "Host: 127.0.0.1", "Host: "+host, 1)
	}
	for name, tc := range map[string]struct {
		request string
		status  int
	}{
		"plain":                        {wsRequest, 101},
		"query":                        {strings.Replace(wsRequest, "/mqtt ", "/mqtt?token=1 ", 1), 101},
		"lower case":                   {strings.Replace(wsRequest, "Sec-WebSocket-Key", "sec-websocket-key", 1), 101},
		"upper case token":             {strings.Replace(wsRequest, "Upgrade: websocket", "Upgrade: WebSocket", 1), 101},
		"other path":                   {strings.Replace(wsRequest, "/mqtt ", "/mqtts ", 1), 404},
		"path below":                   {strings.Replace(wsRequest, "/mqtt ", "/mqtt/ ", 1), 404},
		"root":                         {strings.Replace(wsRequest, "/mqtt ", "/ ", 1), 404},
		"POST":                         {strings.Replace(wsRequest, "GET", "POST", 1), 400},
		"HTTP/1.0":                     {strings.Replace(wsRequest, "HTTP/1.1", "HTTP/1.0", 1), 400},
		"a body":                       {with("Content-Length: 3"), 400},
		"a chunked body":               {with("Transfer-Encoding: chunked"), 400},
		"no host":                      {without("Host"), 400},
		"no upgrade":                   {without("Upgrade"), 426},
		"no connection":                {without("Connection"), 426},
		"no version":                   {without("Sec-WebSocket-Version"), 426},
		"version 8":                    {strings.Replace(wsRequest, "Version: 13", "Version: 8", 1), 426},
		"no key":                       {without("Sec-WebSocket-Key"), 400},
		"short key":                    {strings.Replace(wsRequest, "dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=", 1), 400},
		"key that is not base64":       {strings.Replace(wsRequest, "dGhlIHNhbXBsZSBub25jZQ==", "!", 1), 400},
		"two keys":                     {with("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 400},
		"no subprotocol":               {without("Sec-WebSocket-Protocol"), 400},
		"other subprotocol":            {strings.Replace(wsRequest, "Protocol: mqtt", "Protocol: wamp, amqp", 1), 400},
		"subprotocol in capitals":      {strings.Replace(wsRequest, "Protocol: mqtt", "Protocol: mqttv5", 1), 400},
		"not HTTP":                     {"GET it\r\n\r\n", 400},
		"MQTT":                         {string(connectPacket(t, wire.V311, "x", 2)), 400},
		"large headers":                {with("Cookie: " + strings.Repeat("x", 17<<10)), 431},
		"cookies of a browser":         {with("Cookie: " + strings.Repeat("x", 8<<10)), 101},
		"extensions are not agreed on": {with("Sec-WebSocket-Extensions: permessage-deflate"), 101},
		"origin of an address":         {from("127.0.0.1:8083", "http://127.0.0.1:8083"), 101},
		"origin of localhost":          {from("localhost:8083", "http://localhost:8083"), 101},
		"origin of the machine":        {from(host, "https://"+host), 101},
		"origin in the list":           {from("127.0.0.1", "https://panel.example"), 101},
		"origin with port in the list": {from("127.0.0.1", "http://other.example:8080"), 101},
		"other origin":                 {from("127.0.0.1", "https://evil.example"), 403},
		"other port":                   {from("127.0.0.1:8083", "http://127.0.0.1:8084"), 403},
		"other scheme in the list":     {from("127.0.0.1", "http://panel.example"), 403},
		"other port in the list":       {from("127.0.0.1", "http://other.example"), 403},
		"a name that leads here":       {from("evil.example:8083", "http://evil.example:8083"), 403},
		"sandboxed page":               {from("127.0.0.1", "null"), 403},
		"empty origin":                 {from("127.0.0.1", ""), 403},
		"two origins":                  {with("Origin: https://panel.example\r\nOrigin: https://panel.example"), 403},
	} {
		t.Run(name, func(t *testing.T) {
			p, res := r.wsRequest(tc.request)
			require.Equal(t, tc.status, res.StatusCode)
			if tc.status == http.StatusSwitchingProtocols {
				require.Equal(t, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", res.Header.Get("Sec-WebSocket-Accept"))
				require.Equal(t, "mqtt", res.Header.Get("Sec-WebSocket-Protocol"))
				require.Empty(t, res.Header.Get("Sec-WebSocket-Extensions"))
				return
			}
			if tc.status == http.StatusUpgradeRequired {
				require.Equal(t, "13", res.Header.Get("Sec-WebSocket-Version"))
			}
			text, err := io.ReadAll(res.Body)
			require.NoError(t, err)
			require.NotEmpty(t, text)
			_, err = p.r.ReadByte()
			require.ErrorIs(t, err, io.EOF, "the connection is closed")
		})
	}
}

func TestWebSocketSubprotocols(t *testing.T) {
	r := newWSRig(t, Config{}, ws.Config{})
	for offer, want := range map[string]string{"mqtt": "mqtt", "mqttv3.1": "mqttv3.1", "mqttv3.1, mqtt": "mqtt", "x\r\nSec-WebSocket-Protocol: mqtt": "mqtt"} {
		_, res := r.wsRequest(strings.Replace(wsRequest, "Protocol: mqtt", "Protocol: "+offer, 1))
		require.Equal(t, http.StatusSwitchingProtocols, res.StatusCode)
		require.Equal(t, want, res.Header.Get("Sec-WebSocket-Protocol"))
	}
}

// A request that comes byte by byte, and the first frames right behind it.
func TestWebSocketRequestInPieces(t *testing.T) {
	r := newWSRig(t, Config{}, ws.Config{})
	nc, err := net.Dial("tcp", r.srv.Addr().String())
	require.NoError(t, err)
	defer nc.Close()
	require.NoError(t, nc.SetDeadline(time.Now().Add(patience)))
	for _, b := range []byte(wsRequest[:len(wsRequest)-1]) {
		_, err := nc.Write([]byte{b})
		require.NoError(t, err)
	}
	_, err = nc.Write(append([]byte("\n"), wsFrame(0x82, append(connectPacket(t, wire.V311, "x", 2), 0xc0, 0))...))
	require.NoError(t, err)
	p := &wsPeer{t, nc, bufio.NewReader(nc)}
	res, err := http.ReadResponse(p.r, nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusSwitchingProtocols, res.StatusCode)
	_, payload := p.frame()
	if len(payload) == 4 {
		_, more := p.frame()
		payload = append(payload, more...)
	}
	require.Equal(t, raw(t, "20020000 d000"), payload)
}

// [MQTT-6.0.0-2]: packets are not aligned with frames.
func TestWebSocketFrames(t *testing.T) {
	r := newWSRig(t, Config{}, ws.Config{})
	p := r.wsDial()
	connect := connectPacket(t, wire.V311, "x", 2)
	for i := range connect { // one message of many frames
		first := byte(0)
		if i == 0 {
			first = 2
		}
		p.send(first, connect[i:i+1])
		p.send(0x8a, []byte("a pong in between"))
	}
	p.send(0x80, nil)
	p.expect("2002 0000")
	p.send(0x82, raw(t, "8206 0001 0001"))
	p.send(0x82, raw(t, "'a' 02"))
	p.expect("9003 0001 02")
	p.send(0x82, raw(t, "3206 0001 'a' 0002 'x' c000"))
	var got []byte
	for len(got) < 4+8+2 {
		first, payload := p.frame()
		require.Equal(t, byte(0x82), first)
		got = append(got, payload...)
	}
	require.Contains(t, string(got), string(raw(t, "4002 0002")))
	require.Contains(t, string(got), string(raw(t, "3206 0001 'a' 0001 'x'")))
	require.Contains(t, string(got), string(raw(t, "d000")))
}

// What the writer has is one frame, also when a payload is written from where it is.
func TestWebSocketOneFramePerWrite(t *testing.T) {
	r := newWSRig(t, Config{}, ws.Config{})
	p := r.wsConnect(wire.V311, "x")
	r.store.hold()
	var many []byte
	for i := range 50 {
		many = append(many, raw(t, fmt.Sprintf("3306 0001 'a' %04x 'x'", i+1))...)
	}
	p.send(0x82, append(many, 0xc0, 0))
	p.expect("d000")
	r.store.release()
	frames, bytes := 0, 0
	for bytes < 50*4 {
		_, payload := p.frame()
		frames++
		bytes += len(payload)
	}
	require.Less(t, frames, 25, "acknowledgements travel together")
	for _, size := range []int{100, 126, 16 << 10, 16<<10 + 1, 70_000, 500_000} {
		p.send(0x82, raw(t, "8206 0001 0001 'b' 00"))
		p.expect("9003 0001 00")
		publish := publishPacket("b", strings.Repeat("x", size))
		p.send(0x82, publish)
		first, payload := p.frame()
		require.Equal(t, byte(0x82), first)
		require.Equal(t, len(publish), len(payload), "one frame for a payload of %d bytes", size)
		require.Equal(t, publish, payload)
	}
}

func publishPacket(topic, payload string) []byte {
	n := 2 + len(topic) + len(payload)
	b := []byte{0x30}
	for ; n > 127; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	b = append(b, byte(n), 0, byte(len(topic)))
	return append(append(b, topic...), payload...)
}

func TestWebSocketPing(t *testing.T) {
	r := newWSRig(t, Config{}, ws.Config{})
	p := r.wsDial()
	p.send(0x89, []byte("before CONNECT"))
	first, payload := p.frame()
	require.Equal(t, byte(0x8a), first)
	require.Equal(t, "before CONNECT", string(payload))
	connect := connectPacket(t, wire.V311, "x", 2)
	p.send(2, connect[:5])
	p.send(0x89, nil)
	first, payload = p.frame()
	require.Equal(t, byte(0x8a), first)
	require.Empty(t, payload)
	p.send(0x80, connect[5:])
	p.expect("2002 0000")
}

// A ping of WebSocket is no packet of MQTT: it keeps no session alive [MQTT-3.1.2-22].
func TestWebSocketPingIsNoKeepAlive(t *testing.T) {
	r := newWSRig(t, Config{ConnectTimeout: 300 * time.Millisecond}, ws.Config{})
	p := r.wsDial()
	began := time.Now()
	for time.Since(began) < patience {
		if _, err := p.nc.Write(wsFrame(0x89, nil)); err != nil {
			return
		}
		if _, err := p.r.ReadByte(); err != nil {
			return
		}
	}
	require.Fail(t, "still open without CONNECT")
}

func TestWebSocketCloseCodes(t *testing.T) {
	r := newWSRig(t, Config{}, ws.Config{MaxMessageSize: 100_000})
	for name, tc := range map[string]struct {
		send []byte
		code int
	}{
		"text":                {wsFrame(0x81, []byte("hello")), 1003}, // [MQTT-6.0.0-1]
		"not masked":          {[]byte{0x82, 2, 0xc0, 0}, 1002},
		"reserved bit":        {wsFrame(0xc2, []byte{0xc0, 0}), 1002},
		"unknown opcode":      {wsFrame(0x83, nil), 1002},
		"continuation":        {wsFrame(0x80, nil), 1002},
		"fragmented ping":     {wsFrame(0x09, nil), 1002},
		"too big":             {wsFrame(0x82, make([]byte, 100_001)), 1009},
		"too big in pieces":   {append(wsFrame(0x02, publishPacket("a", strings.Repeat("x", 90_000))), wsFrame(0x80, make([]byte, 20_000))...), 1009},
		"goodbye":             {wsFrame(0x88, []byte{3, 0xe8}), 1000},
		"goodbye with a code": {wsFrame(0x88, []byte{3, 0xe9}), 1001},
		"goodbye for nothing": {wsFrame(0x88, nil), 1000},
		"half a code":         {wsFrame(0x88, []byte{3}), 1002},
		"a code of nobody":    {wsFrame(0x88, []byte{3, 0xed}), 1002},
		"reason not in UTF-8": {wsFrame(0x88, []byte{3, 0xe8, 0xff}), 1007},
	} {
		t.Run(name, func(t *testing.T) {
			p := r.wsConnect(wire.V311, "x")
			p.write(tc.send)
			p.expectClose(tc.code)
			require.NoError(t, p.nc.Close())
			eventually(t, func() bool { return r.srv.Connections() == 0 }, "gone")
		})
	}
}

// What came before a frame that is wrong counts.
func TestWebSocketDisconnectBeforeViolation(t *testing.T) {
	r := newWSRig(t, Config{}, ws.Config{})
	p := r.wsConnect(wire.V5, "x", "")
	p.write(append(wsFrame(0x82, raw(t, "3006 0001 'a' 00 'xx' e002 8000")), wsFrame(0x81, []byte("text"))...))
	first, payload := p.frame()
	require.Equal(t, byte(0x88), first, "DISCONNECT ends it, what follows is not looked at")
	require.Equal(t, uint16(1000), binary.BigEndian.Uint16(payload))
}

// A Close frame without DISCONNECT is a lost connection: the will is published.
func TestWebSocketCloseIsNoDisconnect(t *testing.T) {
	r := newWSRig(t, Config{}, ws.Config{})
	watcher := r.wsConnect(wire.V311, "watcher")
	watcher.send(0x82, raw(t, "8209 0001 0004 'will' 00"))
	watcher.expect("9003 0001 00")
	p := r.wsDial()
	p.send(0x82, connectPacket(t, wire.V311, "x", 6, "0004 'will' 0004 'gone'"))
	p.expect("2002 0000")
	p.send(0x88, []byte{3, 0xe8})
	p.expectClose(1000)
	watcher.expect("300a 0004 'will' 'gone'")
}

func TestWebSocketShutdown(t *testing.T) {
	r := newWSRig(t, Config{}, ws.Config{})
	p := r.wsConnect(wire.V5, "x", "")
	closed := make(chan error, 1)
	go func() { closed <- r.srv.Close() }()
	first, payload := p.frame()
	require.Equal(t, byte(0x82), first)
	require.Equal(t, byte(0xe0), payload[0])
	first, payload = p.frame()
	require.Equal(t, byte(0x88), first)
	require.Equal(t, []byte{3, 0xe8}, payload)
	p.send(0x88, payload)
	_, err := p.r.ReadByte()
	require.ErrorIs(t, err, io.EOF)
	require.NoError(t, <-closed)
}

// A client that asks and does not read its answers is dropped in time.
func TestWebSocketPingFlood(t *testing.T) {
	if testing.Short() {
		t.Skip("a pong may take five seconds")
	}
	r := newWSRig(t, Config{}, ws.Config{})
	p := r.wsConnect(wire.V311, "x")
	flood := bytes.Repeat(wsFrame(0x89, make([]byte, 125)), 100)
	for {
		require.NoError(t, p.nc.SetWriteDeadline(time.Now().Add(2*patience)))
		if _, err := p.nc.Write(flood); err != nil {
			require.False(t, timedOut(err), "neither read nor dropped")
			break
		}
	}
	eventually(t, func() bool { return r.srv.Connections() == 0 }, "gone")
}

// gorilla/websocket reads the RFC with other eyes.
func TestWebSocketOfAnotherCodeBase(t *testing.T) {
	r := newWSRig(t, Config{}, ws.Config{})
	d := websocket.Dialer{Subprotocols: []string{"mqtt"}, EnableCompression: true, HandshakeTimeout: patience}
	url := "ws://" + r.srv.Addr().String() + "/mqtt"
	c, res, err := d.Dial(url, nil)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	defer c.Close()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
	require.Equal(t, "mqtt", c.Subprotocol())
	w, err := c.NextWriter(websocket.BinaryMessage)
	require.NoError(t, err)
	connect := connectPacket(t, wire.V311, "x", 2)
	_, err = w.Write(append(connect, publishPacket("a", strings.Repeat("x", 100_000))...)) // in frames of 4 KiB
	require.NoError(t, err)
	require.NoError(t, w.Close())
	kind, m, err := c.ReadMessage()
	require.NoError(t, err)
	require.Equal(t, websocket.BinaryMessage, kind)
	require.Equal(t, raw(t, "2002 0000"), m)
	pong := ""
	c.SetPongHandler(func(s string) error { pong = s; return nil })
	require.NoError(t, c.WriteControl(websocket.PingMessage, []byte("are you there"), time.Now().Add(patience)))
	require.NoError(t, c.WriteMessage(websocket.BinaryMessage, []byte{0xc0, 0}))
	_, m, err = c.ReadMessage()
	require.NoError(t, err)
	require.Equal(t, raw(t, "d000"), m)
	require.Equal(t, "are you there", pong)
	require.NoError(t, c.WriteMessage(websocket.TextMessage, []byte{0xc0, 0}))
	_, _, err = c.ReadMessage()
	require.True(t, websocket.IsCloseError(err, websocket.CloseUnsupportedData), "%v", err)
	_, res, err = d.Dial(url, http.Header{"Origin": {"https://evil.example"}})
	require.Error(t, err)
	require.Equal(t, http.StatusForbidden, res.StatusCode)
	require.NoError(t, res.Body.Close())
}

func TestWebSocketPaho(t *testing.T) {
	r := newWSRig(t, Config{}, ws.Config{})
	pahoRoundTrip(t, paho3.NewClientOptions().AddBroker("ws://"+r.srv.Addr().String()+"/mqtt"))
}

// pahoRoundTrip sends messages of each QoS and many sizes through a client and back.
func pahoRoundTrip(t *testing.T, o *paho3.ClientOptions) {
	t.Helper()
	c := paho3.NewClient(o.SetClientID("round").SetAutoReconnect(false).SetConnectTimeout(patience))
	wait := func(tok paho3.Token) {
		t.Helper()
		require.True(t, tok.WaitTimeout(patience))
		require.NoError(t, tok.Error())
	}
	wait(c.Connect())
	defer c.Disconnect(100)
	got := make(chan paho3.Message, 100)
	wait(c.Subscribe("r/#", 2, func(_ paho3.Client, m paho3.Message) { got <- m }))
	for _, size := range []int{0, 1, 125, 126, 4096, 65_535, 65_536, 300_000} {
		for qos := range byte(3) {
			payload := bytes.Repeat([]byte{byte(size), qos}, size)
			wait(c.Publish(fmt.Sprintf("r/%d", qos), qos, false, payload))
			m := receive(t, got)
			require.Equal(t, qos, m.Qos())
			require.True(t, bytes.Equal(payload, m.Payload()))
		}
	}
}
