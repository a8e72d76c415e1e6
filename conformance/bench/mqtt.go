package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// mqttConn is the least of an MQTT 3.1.1 client that can make load: packets
// are built once and written many at a time.
type mqttConn struct {
	net.Conn
	r *bufio.Reader
}

func dial(addr, clientID string) (*mqttConn, error) {
	nc, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	c := &mqttConn{nc, bufio.NewReaderSize(nc, 64<<10)}
	body := append([]byte{0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 0}, text(clientID)...)
	answer, err := c.ask(0x10, body, 0x20)
	if err == nil && (len(answer) != 2 || answer[1] != 0) {
		err = fmt.Errorf("CONNACK % x", answer)
	}
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	return c, nil
}

func (c *mqttConn) subscribe(filter string, qos byte) error {
	body := append([]byte{0, 1}, text(filter)...)
	answer, err := c.ask(0x82, append(body, qos), 0x90)
	if err == nil && (len(answer) != 3 || answer[2] != qos) {
		err = fmt.Errorf("SUBACK % x", answer)
	}
	return err
}

func (c *mqttConn) ask(kind byte, body []byte, want byte) ([]byte, error) {
	if _, err := c.Write(packet(kind, body)); err != nil {
		return nil, err
	}
	got, answer, err := c.read()
	if err == nil && got != want {
		err = fmt.Errorf("packet type %#x in answer to %#x", got, kind)
	}
	return answer, err
}

// read returns the next packet; its body is valid until the next read.
func (c *mqttConn) read() (kind byte, body []byte, err error) {
	if kind, err = c.r.ReadByte(); err != nil {
		return 0, nil, err
	}
	n, err := binary.ReadUvarint(c.r)
	if err != nil {
		return 0, nil, err
	}
	if int(n) > c.r.Size() {
		return 0, nil, errors.New("packet larger than the buffer")
	}
	if body, err = c.r.Peek(int(n)); err != nil {
		return 0, nil, err
	}
	_, err = c.r.Discard(int(n))
	return kind, body, err
}

func text(s string) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...) }

func packet(kind byte, body []byte) []byte {
	return append(binary.AppendUvarint([]byte{kind}, uint64(len(body))), body...)
}

// publishPacket builds a PUBLISH; the packet identifier lies at idAt.
func publishPacket(topic string, qos byte, payload int) (p []byte, idAt int) {
	body := text(topic)
	if qos > 0 {
		idAt = len(body)
		body = append(body, 0, 0)
	}
	body = append(body, make([]byte, payload)...)
	p = packet(0x30|qos<<1, body)
	return p, idAt + len(p) - len(body)
}

// receive counts PUBLISH packets and acknowledges those of QoS 1, as many in
// one write as had arrived.
func (c *mqttConn) receive(count func(n int)) error {
	var acks []byte
	for n := 0; ; {
		kind, body, err := c.read()
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		if kind&0xf0 == 0x30 {
			n++
			if kind&6 != 0 {
				at := 2 + int(binary.BigEndian.Uint16(body))
				acks = append(acks, 0x40, 2, body[at], body[at+1])
			}
		}
		if c.r.Buffered() > 0 && n < 256 {
			continue
		}
		if len(acks) > 0 {
			if _, err := c.Write(acks); err != nil {
				return nil //nolint:nilerr // the server was stopped: the measurement is over
			}
			acks = acks[:0]
		}
		count(n)
		n = 0
	}
}
