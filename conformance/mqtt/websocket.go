package mqtt

import (
	"bufio"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"time"
)

// WebSocket opcodes (RFC 6455 section 5.2).
const (
	wsText   byte = 1
	wsBinary byte = 2
	wsClose  byte = 8
)

// wsConn is the client's side of a WebSocket. Read and Write are the stream in
// its binary frames, one frame per Write.
type wsConn struct {
	net.Conn
	in          *bufio.Reader
	rest        []byte // of the frame that is being read
	subprotocol string
	otherFrames bool // the server sent data that is not binary
}

var errClosing = errors.New("the server closes the WebSocket")

// webSocket opens a WebSocket to the target, or ends the check.
func (c *C) webSocket(subprotocol string) *wsConn {
	switch c.target.WebSocket {
	case "":
		c.notJudged("no WebSocket listener is known")
	case NoListener:
		c.notOffered("no WebSocket listener")
	}
	nc, err := net.DialTimeout("tcp", c.target.WebSocket, patience)
	if err != nil {
		c.failf("no connection: %v", err)
	}
	w := &wsConn{Conn: nc, in: bufio.NewReader(nc)}
	key := make([]byte, 16)
	_, _ = rand.Read(key)
	req, err := http.NewRequest(http.MethodGet, "http://"+c.target.WebSocket+"/mqtt", nil)
	if err != nil {
		c.failf("request: %v", err)
	}
	for name, value := range map[string]string{
		"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
		"Sec-WebSocket-Key": base64.StdEncoding.EncodeToString(key), "Sec-WebSocket-Protocol": subprotocol,
	} {
		req.Header.Set(name, value)
	}
	_ = nc.SetDeadline(time.Now().Add(patience))
	if err := req.Write(nc); err != nil {
		c.failf("send the request: %v", err)
	}
	resp, err := http.ReadResponse(w.in, req)
	if err != nil {
		c.failf("answer to the request: %v", err)
	}
	c.require(resp.StatusCode == http.StatusSwitchingProtocols, "the request for a WebSocket is answered %s", resp.Status)
	w.subprotocol = resp.Header.Get("Sec-WebSocket-Protocol")
	return w
}

// frame sends one frame, masked as a client must.
func (w *wsConn) frame(opcode byte, data []byte) error {
	head := []byte{0x80 | opcode}
	switch n := len(data); {
	case n < 126:
		head = append(head, 0x80|byte(n))
	case n < 1<<16:
		head = binary.BigEndian.AppendUint16(append(head, 0x80|126), uint16(n))
	default:
		head = binary.BigEndian.AppendUint64(append(head, 0x80|127), uint64(n))
	}
	mask := [4]byte{1, 2, 3, 4}
	head = append(head, mask[:]...)
	for i, b := range data {
		head = append(head, b^mask[i%4])
	}
	_, err := w.Conn.Write(head)
	return err
}

// Write sends b as one binary frame.
func (w *wsConn) Write(b []byte) (int, error) { return len(b), w.frame(wsBinary, b) }

// Read reads the data of binary frames.
func (w *wsConn) Read(b []byte) (int, error) {
	for len(w.rest) == 0 {
		opcode, data, err := w.next()
		if err != nil {
			return 0, err
		}
		switch opcode {
		case wsClose:
			return 0, errClosing
		case wsText:
			w.otherFrames = true
		case wsBinary, 0:
			w.rest = data
		}
	}
	n := copy(b, w.rest)
	w.rest = w.rest[n:]
	return n, nil
}

func (w *wsConn) next() (opcode byte, data []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(w.in, head[:]); err != nil {
		return 0, nil, err
	}
	length := uint64(head[1] & 0x7F)
	if length >= 126 {
		wide := make([]byte, map[uint64]int{126: 2, 127: 8}[length])
		if _, err := io.ReadFull(w.in, wide); err != nil {
			return 0, nil, err
		}
		length = 0
		for _, b := range wide {
			length = length<<8 | uint64(b)
		}
	}
	if length > 1<<24 {
		return 0, nil, errors.New("a WebSocket frame of more than 16 MiB")
	}
	data = make([]byte, length)
	_, err = io.ReadFull(w.in, data)
	return head[0] & 0x0F, data, err
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
