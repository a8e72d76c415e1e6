package main

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"
)

const coapSockets = 50

// coapPut compares confirmable PUTs: to the gateway they are durable before
// the answer, to libcoap's example server they are a value in memory.
func coapPut(ctx context.Context, f *flags) error {
	bridge := fmt.Sprintf(bridgeYAML, "127.0.0.1:1")
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "CoAP CON PUT, %d sockets, 50 B\tanswers/s\tµs CPU/request\t\n", coapSockets)
	for _, p := range []struct {
		name  string
		path  []string
		start func() (*server, error)
	}{
		{"gantry, durable in a bridge queue", []string{"ps", "bench", "%d"}, func() (*server, error) { return startGantry(f, bridge) }},
		{"gantry, nobody takes it", []string{"ps", "other", "%d"}, func() (*server, error) { return startGantry(f, "") }},
		{"libcoap's coap-server, in memory", []string{"example_data"}, startLibcoap},
	} {
		s, err := p.start()
		if err != nil {
			return err
		}
		n, cpu, err := putFor(ctx, s, p.path, f.For)
		s.stop()
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		fmt.Fprintf(t, "%s\t%.0f\t%.2f\t\n", p.name, float64(n)/f.For.Seconds(), cpu.Seconds()*1e6/float64(n))
	}
	return t.Flush()
}

// putFor sends one PUT after the other on each socket.
func putFor(ctx context.Context, s *server, path []string, d time.Duration) (n int64, cpu time.Duration, err error) {
	var count atomic.Int64
	var wg sync.WaitGroup
	errs := make(chan error, coapSockets)
	end := time.Now().Add(warm + d)
	for i := range coapSockets {
		wg.Go(func() { errs <- putLoop(ctx, s.coap, path, i, end, &count) })
	}
	time.Sleep(warm)
	before, cpuBefore := count.Load(), s.cpu()
	time.Sleep(d)
	n, cpu = count.Load()-before, s.cpu()-cpuBefore
	wg.Wait()
	for range coapSockets {
		err = cmp.Or(err, <-errs)
	}
	return n, cpu, err
}

// awaitCoAP pings a server until it answers with a reset.
func awaitCoAP(addr string) error {
	c, err := net.Dial("udp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	answer := make([]byte, 16)
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		_, _ = c.Write([]byte{0x40, 0, 0xff, 0xff}) // refused while nobody listens
		if err := c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
			return err
		}
		if n, err := c.Read(answer); err == nil && n >= 4 && answer[0]>>4&3 == 3 {
			return nil
		}
	}
	return fmt.Errorf("no CoAP server answers on %s", addr)
}

func putLoop(ctx context.Context, addr string, path []string, socket int, end time.Time, count *atomic.Int64) error {
	c, err := net.Dial("udp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	answer := make([]byte, 1500)
	request := putPacket(path, socket)
	for id := uint16(0); time.Now().Before(end) && ctx.Err() == nil; id++ {
		binary.BigEndian.PutUint16(request[2:], id)
		binary.BigEndian.PutUint16(request[4:], id) // the token
		if err := exchange(c, request, answer); err != nil {
			return err
		}
		count.Add(1)
	}
	return nil
}

// exchange sends a request again after 2 s without an answer, as a client does.
func exchange(c net.Conn, request, answer []byte) error {
	for range 4 {
		if _, err := c.Write(request); err != nil {
			return err
		}
		deadline := time.Now().Add(2 * time.Second)
		for {
			if err := c.SetReadDeadline(deadline); err != nil {
				return err
			}
			n, err := c.Read(answer)
			if err != nil {
				break // sent again
			}
			if n < 6 || answer[1] == 0 || answer[4] != request[4] || answer[5] != request[5] {
				continue // an empty acknowledgement, or late for an earlier request
			}
			if answer[1]>>5 != 2 {
				return fmt.Errorf("answer %d.%02d", answer[1]>>5, answer[1]&31)
			}
			return nil
		}
	}
	return errors.New("no answer to four transmissions")
}

// putPacket is a confirmable PUT with a token of two bytes.
func putPacket(path []string, socket int) []byte {
	p := []byte{0x42, 0x03, 0, 0, 0, 0}
	delta := byte(11) // Uri-Path
	for _, segment := range path {
		if segment == "%d" {
			segment = fmt.Sprint(socket)
		}
		p = append(p, delta<<4|byte(len(segment)))
		p = append(p, segment...)
		delta = 0
	}
	p = append(p, 0xff)
	return append(p, make([]byte, 50)...)
}
