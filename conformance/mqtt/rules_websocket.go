package mqtt

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// refusedRequest sends a changed request for a WebSocket, which must get one of
// the statuses.
func (c *C) refusedRequest(what string, change func(*handshake), statuses ...int) *http.Response {
	h, err := c.requestWebSocket(c.webSocketAddr(), change)
	if err != nil {
		c.failf("%s: %v", what, err)
	}
	defer h.nc.Close()
	c.require(slices.Contains(statuses, h.answer.StatusCode), "%s is answered %s, not one of %v", what, h.answer.Status, statuses)
	return h.answer
}

func (c *C) acceptedRequest(what string, change func(*handshake)) *http.Response {
	h, err := c.requestWebSocket(c.webSocketAddr(), change)
	if err == nil {
		defer h.nc.Close()
		err = h.accepted()
	}
	if err != nil {
		c.failf("%s: %v", what, err)
	}
	return h.answer
}

// with changes headers of a request; "" removes one.
func with(pairs ...string) func(*handshake) {
	return func(h *handshake) {
		for i := 0; i < len(pairs); i += 2 {
			h.header.Set(pairs[i], pairs[i+1])
			if pairs[i+1] == "" {
				h.header.Del(pairs[i])
			}
		}
	}
}

func subprotocols(c *C) {
	const header = "Sec-WebSocket-Protocol"
	for _, bad := range []string{"", "mqtt5", "other", "mqtt-ws"} {
		c.refusedRequest(fmt.Sprintf("a request with the subprotocol %q", bad), with(header, bad), http.StatusBadRequest)
	}
	for asked, want := range map[string]string{"mqtt": "mqtt", "mqttv3.1": "mqttv3.1", "other,mqttv3.1": "mqttv3.1", "other, mqtt": "mqtt"} {
		got := c.acceptedRequest("a request with the subprotocol "+asked, with(header, asked)).Header.Values(header)
		c.require(slices.Equal(got, []string{want}), "of %s the subprotocol %q is selected", asked, got)
	}
}

func otherPath(c *C) {
	u, err := webSocketURL(c.webSocketAddr())
	if err != nil {
		c.failf("address: %v", err)
	}
	for _, path := range []string{"/", u.Path + "x", u.Path + "/", "/a" + u.Path, strings.ToUpper(u.Path)} {
		c.refusedRequest("a request for "+path, func(h *handshake) { h.path = path }, http.StatusNotFound)
	}
	c.acceptedRequest("a request with a query", func(h *handshake) { h.path = u.Path + "?a=b" })
}

func origins(c *C) {
	u, err := webSocketURL(c.webSocketAddr())
	if err != nil {
		c.failf("address: %v", err)
	}
	scheme := map[string]string{schemeWS: "http", schemeWSS: "https"}[u.Scheme]
	c.acceptedRequest("a request of a program", nil)
	c.acceptedRequest("a request of a page from the same address", with("Origin", scheme+"://"+u.Host))
	for _, foreign := range []string{
		"https://evil.example", "https://" + u.Host + ".evil.example", scheme + "://" + u.Hostname() + ":1", "null", "nonsense",
	} {
		c.refusedRequest("a request of a page from "+foreign, with("Origin", foreign), http.StatusForbidden)
	}
	// A name of the attacker that leads to the server's address (DNS rebinding).
	c.refusedRequest("a request of a page that names the server by its own name", func(h *handshake) {
		h.host = "rebound.example:" + u.Port()
		h.header.Set("Origin", scheme+"://"+h.host)
	}, http.StatusForbidden)
}

func badRequests(c *C) {
	c.refusedRequest("POST", func(h *handshake) { h.method = http.MethodPost }, http.StatusBadRequest, http.StatusMethodNotAllowed)
	c.refusedRequest("a request without Upgrade", with("Upgrade", ""), http.StatusBadRequest, http.StatusUpgradeRequired)
	c.refusedRequest("a request to upgrade to h2c", with("Upgrade", "h2c"), http.StatusBadRequest, http.StatusUpgradeRequired)
	c.refusedRequest("a request without Connection: Upgrade", with("Connection", "keep-alive"), http.StatusBadRequest, http.StatusUpgradeRequired)
	for _, key := range []string{"", "short", "bm90IHNpeHRlZW4gYnl0ZXM=", "****************"} {
		c.refusedRequest(fmt.Sprintf("a request with the key %q", key), with("Sec-WebSocket-Key", key), http.StatusBadRequest)
	}
	for _, version := range []string{"", "8", "14"} {
		answer := c.refusedRequest(fmt.Sprintf("a request for version %q", version), with("Sec-WebSocket-Version", version), http.StatusUpgradeRequired)
		got := answer.Header.Get("Sec-WebSocket-Version")
		c.require(got == "13", "the answer to version %q offers version %q", version, got)
	}
}

func fragments(c *C) {
	p, w := c.wsPeer()
	raw := connect{id: c.client("f")}.encode(c.v)
	for i := range raw {
		opcode := wsContinued
		if i == 0 {
			opcode = wsBinary
		}
		c.write(w.part(opcode, raw[i:i+1]))
		c.write(w.part(wsContinued, nil)) // an empty frame changes nothing
		c.write(w.frame(wsPong, []byte("unasked")))
	}
	c.write(w.part(wsFinal|wsContinued, nil))
	p.expect(connackType)
	p.subscribe(1, c.topic("t"))
	payload := strings.Repeat("x", 70_000)
	whole := publication{topic: c.topic("t"), payload: payload, qos: 1, id: 9}.encode(c.v)
	c.write(w.part(wsBinary, whole[:126]))
	c.write(w.part(wsContinued, whole[126:66_000]))
	c.write(w.part(wsFinal|wsContinued, whole[66_000:]))
	p.awaitID(pubackType, 9)
	p.gets(payload)
}

// write is for frames that the server must take.
func (c *C) write(err error) {
	if err != nil {
		c.failf("send a frame: %v", err)
	}
}

// wsPings waits for each pong, because a server may answer the newest ping alone
// (RFC 6455 section 5.5.3).
func wsPings(c *C) {
	p, w := c.wsPeer()
	longest := strings.Repeat("p", 125)
	raw := connect{id: c.client("p")}.encode(c.v)
	w.ping("before CONNECT")
	c.write(w.part(wsBinary, raw[:7]))
	w.ping("")
	c.write(w.part(wsFinal|wsContinued, raw[7:]))
	p.expect(connackType)
	w.ping(longest)
	p.nothing("beside pongs comes")
}

// ping sends one and waits for its pong. Nothing else may come before it.
func (w *wsConn) ping(payload string) {
	w.c.write(w.frame(wsPing, []byte(payload)))
	w.c.write(w.SetReadDeadline(time.Now().Add(patience)))
	before := len(w.pongs)
	for len(w.pongs) == before {
		if err := w.next(); err != nil {
			w.c.failf("instead of a pong: %v", err)
		}
		w.c.require(w.left == 0, "instead of a pong come data")
	}
	got := w.pongs[before]
	w.c.require(got == payload, "a ping of %q is answered with %q", payload, got)
}

// What ends a WebSocket (RFC 6455 section 7.4.1).
const (
	wsNormal      = 1000
	wsGoingAway   = 1001
	wsProtocol    = 1002
	wsUnsupported = 1003
	wsBadText     = 1007
)

func closeCodes(c *C) {
	for what, tc := range map[string]struct {
		first byte
		data  []byte
		code  int
	}{
		"a text frame":                     {wsFinal | wsText, []byte("text"), wsUnsupported},
		"a reserved bit":                   {wsFinal | 0x40 | wsBinary, pingreq, wsProtocol},
		"an unknown kind of data":          {wsFinal | 3, nil, wsProtocol},
		"an unknown control frame":         {wsFinal | 11, nil, wsProtocol},
		"a continuation without beginning": {wsFinal | wsContinued, pingreq, wsProtocol},
		"a ping in parts":                  {wsPing, nil, wsProtocol},
		"a ping that is too long":          {wsFinal | wsPing, make([]byte, 126), wsProtocol},
		"half a close code":                {wsFinal | wsClose, []byte{3}, wsProtocol},
		"a close code that nobody sends":   {wsFinal | wsClose, []byte{3, 0xED}, wsProtocol},
		"a close reason that is no text":   {wsFinal | wsClose, []byte{3, 0xE8, 0xFF}, wsBadText},
		"going away":                       {wsFinal | wsClose, []byte{3, 0xE9}, wsGoingAway},
	} {
		p, w := c.wsPeer()
		p.what = what
		p.join(connect{id: c.client(fmt.Sprint("k", len(c.peers)))})
		c.write(w.part(tc.first, tc.data))
		p.closed(nil)
		c.require(w.closeCode == tc.code, "%s: the close code is %d, not %d", what, w.closeCode, tc.code)
	}
	unmasked(c)
}

func unmasked(c *C) {
	p, w := c.wsPeer()
	p.what = "a frame without mask"
	p.join(connect{id: c.client("m")})
	_, err := w.Conn.Write([]byte{wsFinal | wsBinary, 2, pingreqType, 0})
	c.write(err)
	p.closed(nil)
	c.require(w.closeCode == wsProtocol, "after a frame without mask the close code is %d", w.closeCode)
}

func closeWithoutDisconnect(c *C) {
	watch := c.willWatch()
	p, w := c.wsPeer()
	p.join(connect{id: c.client("w"), will: &will{topic: c.topic("w"), payload: "gone", qos: 1}})
	c.write(w.frame(wsClose, []byte{3, 0xE8}))
	p.closed(nil)
	c.require(w.closeCode == wsNormal, "Close 1000 is answered with %d", w.closeCode)
	watch.gets("gone")
}

func disconnectCloses(c *C) {
	watch := c.willWatch()
	p, w := c.wsPeer()
	p.join(connect{id: c.client("d"), will: &will{topic: c.topic("w"), payload: "gone", qos: 1}})
	p.leave(0)
	c.require(w.closeCode == wsNormal, "after DISCONNECT the close code is %d", w.closeCode)
	watch.nothing("after DISCONNECT the will comes")
}
