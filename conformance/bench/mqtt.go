package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
)

// mqttConn is the least of an MQTT 3.1.1 client that can make load: packets
// are built once and written many at a time.
type mqttConn struct {
	net.Conn
	r *bufio.Reader
}

func newMQTTConn(nc net.Conn, buffer int) *mqttConn {
	return &mqttConn{nc, bufio.NewReaderSize(nc, buffer)}
}

// dial connects a client with a clean session over TCP.
func (s *server) dial(clientID string) (*mqttConn, error) { return s.dialOver(overTCP, nil, clientID) }

// dialOver connects a client from a source address, which may be nil.
func (s *server) dialOver(over transport, from net.IP, clientID string) (*mqttConn, error) {
	nc, err := s.open(over, from)
	if err != nil {
		return nil, err
	}
	c := newMQTTConn(nc, 64<<10)
	if err := c.connect(clientID); err != nil {
		nc.Close()
		return nil, fmt.Errorf("connect to %s: %w", s.addrs[over], err)
	}
	return c, nil
}

func (c *mqttConn) connect(clientID string) error {
	body := append([]byte{0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 0}, text(clientID)...)
	answer, err := c.ask(0x10, body, 0x20)
	if err == nil && (len(answer) != 2 || answer[1] != 0) {
		err = fmt.Errorf("CONNACK % x", answer)
	}
	return err
}

// filtersPerSubscribe keeps a SUBSCRIBE below the receive buffers of servers.
const filtersPerSubscribe = 100

func (c *mqttConn) subscribe(qos byte, filters ...string) error {
	for some := range slices.Chunk(filters, filtersPerSubscribe) {
		body := []byte{0, 1}
		for _, f := range some {
			body = append(append(body, text(f)...), qos)
		}
		answer, err := c.ask(0x82, body, 0x90)
		if err != nil {
			return err
		}
		if !bytes.Equal(answer, append([]byte{0, 1}, bytes.Repeat([]byte{qos}, len(some))...)) {
			return fmt.Errorf("SUBACK % x", answer)
		}
	}
	return nil
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

// packets waits for a packet and calls each for all whole ones that have come.
func (c *mqttConn) packets(each func(kind byte, body []byte)) error {
	need := 2
	for {
		if _, err := c.r.Peek(need); err != nil {
			return err
		}
		in, _ := c.r.Peek(c.r.Buffered())
		used := 0
		for {
			n, size := binary.Uvarint(in[min(used+1, len(in)):])
			if size < 0 || size > 4 || n > uint64(c.r.Size()-5) {
				return errors.New("packet larger than the buffer")
			}
			total := 1 + size + int(n)
			if size == 0 || used+total > len(in) {
				need = max(2, total)
				break
			}
			each(in[used], in[used+1+size:used+total])
			used += total
		}
		if used > 0 {
			_, err := c.r.Discard(used)
			return err
		}
		if need <= len(in) {
			need = len(in) + 1 // the length is not whole
		}
	}
}

// discard reads acknowledgements that nobody waits for.
func (c *mqttConn) discard() error {
	_, err := io.Copy(io.Discard, c.r)
	return err
}

// receive counts PUBLISH packets and acknowledges those of QoS 1, as many in
// one write as had arrived. each, if it is not nil, gets every payload.
func (c *mqttConn) receive(count func(n int), each func(payload []byte)) error {
	var acks []byte
	for {
		n := 0
		err := c.packets(func(kind byte, body []byte) {
			if kind&0xf0 != 0x30 {
				return
			}
			n++
			at := 2 + int(binary.BigEndian.Uint16(body))
			if kind&6 != 0 {
				acks = append(acks, 0x40, 2, body[at], body[at+1])
				at += 2
			}
			if each != nil {
				each(body[at:])
			}
		})
		if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		if len(acks) > 0 {
			if _, err := c.Write(acks); err != nil {
				return nil //nolint:nilerr // the server was stopped: the measurement is over
			}
			acks = acks[:0]
		}
		count(n)
	}
}
