package mqtt

import (
	"bufio"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// WebSocket opcodes (RFC 6455 section 5.2).
const (
	wsContinued byte = 0
	wsText      byte = 1
	wsBinary    byte = 2
	wsClose     byte = 8
	wsPing      byte = 9
	wsPong      byte = 10
)

// wsFinal marks the last frame of a message.
const wsFinal byte = 0x80

// wsConn is the client's side of a WebSocket. Read and Write are the stream in
// its binary frames, one frame per Write. Read goes on after a deadline, and
// ends the check at a frame that a server may not send.
type wsConn struct {
	net.Conn
	c           *C
	in          *bufio.Reader
	left        uint64 // bytes of the data frame that is being read
	open        bool   // a message has begun and not ended
	subprotocol string
	otherFrames bool     // the server sent data that is not binary
	pongs       []string // payloads of the server's pongs
	closeCode   int      // of its Close frame; 0 = none came, or one without a code
}

var errClosing = errors.New("the server closes the WebSocket")

// handshake is the request for a WebSocket, and what came of it.
type handshake struct {
	method, path, host string
	header             http.Header

	key    string
	nc     net.Conn
	in     *bufio.Reader
	answer *http.Response
}

// requestWebSocket asks for a WebSocket. The connection stays open, whatever the
// answer; change, if it is not nil, may alter the request before it is sent.
func (c *C) requestWebSocket(addr string, change func(*handshake)) (*handshake, error) {
	u, err := webSocketURL(addr)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, 16)
	_, _ = rand.Read(nonce)
	h := &handshake{method: http.MethodGet, path: u.Path, host: u.Host, key: base64.StdEncoding.EncodeToString(nonce)}
	h.header = http.Header{
		"Upgrade": {"websocket"}, "Connection": {"Upgrade"}, "Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Key": {h.key}, "Sec-Websocket-Protocol": {"mqtt"},
	}
	if change != nil {
		change(h)
	}
	if h.nc, h.in, err = c.openBelow(u); err != nil {
		return nil, err
	}
	if err := h.exchange(); err != nil {
		_ = h.nc.Close()
		return nil, err
	}
	return h, nil
}

func (h *handshake) exchange() error {
	if err := h.nc.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	req, err := http.NewRequest(h.method, "http://"+h.host+h.path, nil)
	if err != nil {
		return err
	}
	req.Header = h.header
	if err := req.Write(h.nc); err != nil {
		return fmt.Errorf("send the request for a WebSocket: %w", err)
	}
	if h.answer, err = http.ReadResponse(h.in, req); err != nil {
		return fmt.Errorf("answer to the request for a WebSocket: %w", err)
	}
	return nil
}

// accepted returns an error unless the answer is that of RFC 6455 section 4.2.2.
func (h *handshake) accepted() error {
	if h.answer.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("the request for a WebSocket is answered %s", h.answer.Status)
	}
	sum := sha1.Sum([]byte(h.key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	if got := h.answer.Header.Get("Sec-WebSocket-Accept"); got != base64.StdEncoding.EncodeToString(sum[:]) {
		return fmt.Errorf("Sec-WebSocket-Accept is %q for the key %s", got, h.key)
	}
	if extensions := h.answer.Header.Get("Sec-WebSocket-Extensions"); extensions != "" {
		return fmt.Errorf("the server uses extensions that nobody offered: %s", extensions)
	}
	return nil
}

// frame sends one whole message, masked as a client must.
func (w *wsConn) frame(opcode byte, data []byte) error { return w.part(wsFinal|opcode, data) }

// part sends a frame with a first byte of the caller's choice.
func (w *wsConn) part(first byte, data []byte) error {
	head := []byte{first}
	switch n := len(data); {
	case n < 126:
		head = append(head, 0x80|byte(n))
	case n < 1<<16:
		head = binary.BigEndian.AppendUint16(append(head, 0x80|126), uint16(n))
	default:
		head = binary.BigEndian.AppendUint64(append(head, 0x80|127), uint64(n))
	}
	var mask [4]byte
	_, _ = rand.Read(mask[:])
	head = append(head, mask[:]...)
	for i, b := range data {
		head = append(head, b^mask[i%4])
	}
	_, err := w.Conn.Write(head)
	return err
}

// Write sends b as one binary frame.
func (w *wsConn) Write(b []byte) (int, error) {
	if err := w.frame(wsBinary, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Read reads the data of data frames.
func (w *wsConn) Read(b []byte) (int, error) {
	for w.left == 0 {
		if err := w.next(); err != nil {
			return 0, err
		}
	}
	n, err := w.in.Read(b[:min(uint64(len(b)), w.left)])
	w.left -= uint64(n)
	return n, err
}

// next takes the header of a data frame, or a whole control frame. What it has
// not got complete stays unread.
func (w *wsConn) next() error {
	head, err := w.in.Peek(2)
	if err != nil {
		return err
	}
	first, length, size := head[0], uint64(head[1]), 2
	w.c.require(first&0x70 == 0, "the server sends a WebSocket frame with reserved bits, %#02x", first)
	w.c.require(length < 0x80, "the server masks a WebSocket frame")
	if length >= 126 {
		wide := map[uint64]int{126: 2, 127: 8}[length]
		size += wide
		if head, err = w.in.Peek(size); err != nil {
			return err
		}
		length = 0
		for _, b := range head[2:] {
			length = length<<8 | uint64(b)
		}
		w.c.require(length >= 126 && (wide == 2 || length >= 1<<16), "the length of a WebSocket frame, %d, takes %d bytes", length, wide)
	}
	if opcode := first &^ wsFinal; opcode >= wsClose {
		return w.control(first, size, length)
	}
	if _, err := w.in.Discard(size); err != nil {
		return err
	}
	w.data(first)
	w.left = length
	return nil
}

func (w *wsConn) data(first byte) {
	opcode := first &^ wsFinal
	w.c.require(opcode <= wsBinary, "the server sends a WebSocket frame of kind %d, which does not exist", opcode)
	w.c.require((opcode == wsContinued) == w.open, "the server sends a WebSocket frame of kind %d, and whether it is within a message is %v", opcode, w.open)
	w.open = first&wsFinal == 0
	w.otherFrames = w.otherFrames || opcode == wsText
}

func (w *wsConn) control(first byte, header int, length uint64) error {
	w.c.require(first&wsFinal != 0 && length < 126, "the server sends a control frame in parts, or of %d bytes", length)
	frame, err := w.in.Peek(header + int(length))
	if err != nil {
		return err
	}
	payload := string(frame[header:])
	if _, err := w.in.Discard(len(frame)); err != nil {
		return err
	}
	switch opcode := first &^ wsFinal; opcode {
	case wsClose:
		w.c.require(length != 1, "the server sends a Close frame with half a code")
		if length > 1 {
			w.closeCode = int(payload[0])<<8 | int(payload[1])
		}
		return errClosing
	case wsPing:
		return w.frame(wsPong, []byte(payload))
	case wsPong:
		w.pongs = append(w.pongs, payload)
	default:
		w.c.failf("the server sends a control frame of kind %d, which does not exist", opcode)
	}
	return nil
}
