package mqtt

// webSocket opens a WebSocket to the target, or ends the check.
func (c *C) webSocket(subprotocols string) *wsConn {
	w, err := c.openWebSocket(c.webSocketAddr(), subprotocols)
	if err != nil {
		c.failf("no WebSocket: %v", err)
	}
	return w
}

// webSocketAddr is that of the listener to judge, if it is one for WebSocket,
// or else that of the target's other one.
func (c *C) webSocketAddr() string {
	if scheme, _ := splitAddress(c.target.Addr); scheme == schemeWS || scheme == schemeWSS {
		return c.target.Addr
	}
	switch c.target.WebSocket {
	case "":
		c.notJudged("no WebSocket listener is known")
	case NoListener:
		c.notOffered("no WebSocket listener")
	}
	return c.target.WebSocket
}

// wsPeer is an MQTT connection over a WebSocket.
func (c *C) wsPeer() (*peer, *wsConn) {
	w := c.webSocket("mqtt")
	p := newPeer(c, w)
	c.peers = append(c.peers, p)
	return p, w
}

// binaryFrames: the server's packets come in binary frames, and a text frame
// ends the connection.
func binaryFrames(c *C) {
	p, w := c.wsPeer()
	p.join(connect{id: c.client("ws")})
	p.nothing("beside CONNACK comes")
	c.require(!w.otherFrames, "the server sends a text frame")
	if err := w.frame(wsText, pingreq); err != nil {
		return
	}
	p.closed(nil)
}

// unalignedFrames: packets cut into frames of one byte, and several packets in
// one frame.
func unalignedFrames(c *C) {
	p, _ := c.wsPeer()
	for _, b := range (connect{id: c.client("ws")}).encode(c.v) {
		p.send([]byte{b})
	}
	p.expect(connackType)
	sub := subscribePacket(c.v, 1, nil, filter{c.topic("t"), 0})
	all := join(sub, publication{topic: c.topic("t"), payload: "m", qos: 1, id: 2}.encode(c.v), pingreq)
	p.send(all[:9])
	p.send(all[9:])
	p.awaitID(subackType, 1)
	p.awaitID(pubackType, 2)
	p.await(pingrespType)
	p.gets("m")
}

func selectedSubprotocol(c *C) {
	w := c.webSocket("other, mqtt")
	defer w.Close()
	c.require(w.subprotocol == "mqtt", "the server selects the subprotocol %q", w.subprotocol)
}
