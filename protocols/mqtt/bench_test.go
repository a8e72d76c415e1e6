package mqtt

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/broker"
	"gantry/protocols/mqtt/wire"
	"gantry/protocols/mqtt/ws"
)

// reportCPU adds the CPU time of the whole process, clients included, per message.
func reportCPU(b *testing.B, messages int) func() {
	var before syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	start := time.Now()
	var m0 runtime.MemStats
	runtime.ReadMemStats(&m0)
	return func() {
		wall := time.Since(start)
		var after syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
		cpu := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
		var m1 runtime.MemStats
		runtime.ReadMemStats(&m1)
		b.ReportMetric(float64(messages)/wall.Seconds(), "msg/s")
		b.ReportMetric(float64(cpu.Nanoseconds())/float64(messages), "cpu-ns/msg")
		b.ReportMetric(float64(m1.Mallocs-m0.Mallocs)/float64(messages), "allocs/msg")
	}
}

// BenchmarkFanOut sends b.N messages of 128 bytes from each of `pubs` clients
// to each of `subs` clients over loopback sockets, with the window that the
// client keeps for QoS 1. A message counts once in and once for each receiver.
func BenchmarkFanOut(b *testing.B) {
	for _, c := range []struct {
		name       string
		v          wire.Version
		qos        byte
		pubs, subs int
	}{
		{"qos0-1x1", wire.V311, 0, 1, 1},
		{"qos0-10x10", wire.V311, 0, 10, 10},
		{"qos0-10x10-v5", wire.V5, 0, 10, 10},
		{"qos1-1x1", wire.V311, 1, 1, 1},
		{"qos1-10x10", wire.V311, 1, 10, 10},
		{"qos1-50x0-window200", wire.V5, 1, 50, 0},
	} {
		b.Run(c.name, func(b *testing.B) { fanOut(b, c.v, c.qos, c.pubs, c.subs) })
	}
}

func fanOut(b *testing.B, v wire.Version, qos byte, pubs, subs int) {
	r := newRigOn(b, nil, Config{}, broker.Config{Session: broker.SessionConfig{Inflight: 1000, MemoryBytes: 1 << 30}})
	done := make(chan error, pubs+subs)
	total := b.N * pubs
	for i := range subs {
		p := r.connect(v, fmt.Sprintf("s%d", i), 2)
		if v == wire.V5 {
			p.send(fmt.Sprintf("82 0d 0001 00 0007 'bench/#' %02x", qos))
			p.expect(fmt.Sprintf("90 04 0001 00 %02x", qos))
		} else {
			p.send(fmt.Sprintf("82 0c 0001 0007 'bench/#' %02x", qos))
			p.expect(fmt.Sprintf("90 03 0001 %02x", qos))
		}
		go func() { done <- benchReceive(p, qos, total) }()
	}
	publishers := make([]*peer, pubs)
	for i := range publishers {
		publishers[i] = r.connect(v, fmt.Sprintf("p%d", i), 2)
	}
	b.ResetTimer()
	stop := reportCPU(b, total*(1+subs))
	for i, p := range publishers {
		go func() { done <- benchPublish(p, i, qos, b.N) }()
	}
	for range pubs + subs {
		require.NoError(b, <-done)
	}
	b.StopTimer()
	stop()
}

// benchReceive reads n PUBLISH packets of 128 bytes payload and acknowledges
// in batches.
func benchReceive(p *peer, qos byte, n int) error {
	_ = p.nc.SetDeadline(time.Time{})
	in := bufio.NewReaderSize(p.nc, 64<<10)
	var acks []byte
	for range n {
		head, err := in.Peek(3)
		if err != nil {
			return err
		}
		length := int(head[1]&0x7f) | int(head[2])<<7
		packet, err := in.Peek(3 + length)
		if err != nil {
			return err
		}
		if qos > 0 {
			id := 3 + 2 + (int(packet[3])<<8 | int(packet[4]))
			acks = append(acks, 0x40, 2, packet[id], packet[id+1])
		}
		_, _ = in.Discard(3 + length)
		if len(acks) > 0 && in.Buffered() == 0 || len(acks) >= 400 {
			if _, err := p.nc.Write(acks); err != nil {
				return err
			}
			acks = acks[:0]
		}
	}
	if len(acks) > 0 {
		_, _ = p.nc.Write(acks)
	}
	return nil
}

// benchPublish sends n messages, at most 200 of them unacknowledged.
func benchPublish(p *peer, i int, qos byte, n int) error {
	_ = p.nc.SetDeadline(time.Time{})
	out := wire.Outgoing{
		Message: &broker.Message{Topic: fmt.Sprintf("bench/%02d", i), Payload: make([]byte, 128)},
		Version: p.v, QoS: broker.QoS(qos), PacketID: 1,
	}
	out.Measure()
	window := make(chan struct{}, 200)
	acked := make(chan error, 1)
	if qos > 0 {
		go func() { acked <- benchAcks(p, window, n) }()
	}
	var buf []byte
	var id atomic.Uint32
	for k := range n {
		if qos > 0 {
			select {
			case window <- struct{}{}:
			default:
				if _, err := p.nc.Write(buf); err != nil {
					return err
				}
				buf = buf[:0]
				window <- struct{}{}
			}
			out.PacketID = uint16(id.Add(1)%65535 + 1)
		}
		buf = out.Append(buf)
		if len(buf) >= 16<<10 || k == n-1 {
			if _, err := p.nc.Write(buf); err != nil {
				return err
			}
			buf = buf[:0]
		}
	}
	if qos > 0 {
		return <-acked
	}
	return nil
}

func benchAcks(p *peer, window chan struct{}, n int) error {
	in := bufio.NewReaderSize(p.nc, 16<<10)
	head := make([]byte, 2)
	for range n {
		if _, err := io.ReadFull(in, head); err != nil {
			return err
		}
		if _, err := in.Discard(int(head[1])); err != nil {
			return err
		}
		<-window
	}
	return nil
}

// BenchmarkIdleConnection reports what one idle, subscribed connection costs,
// its session and the client's end of the socket included.
func BenchmarkIdleConnection(b *testing.B) {
	cfg := Config{MaxHalfOpenPerAddress: 10_000}
	b.Run("TCP", func(b *testing.B) {
		benchIdle(b, newRigOn(b, nil, cfg, broker.Config{}), func(nc net.Conn, packets []byte) {
			_, err := nc.Write(packets)
			require.NoError(b, err)
			_, err = io.ReadFull(nc, make([]byte, 9))
			require.NoError(b, err)
		})
	})
	b.Run("WebSocket", func(b *testing.B) {
		benchIdle(b, newWSRig(b, cfg, ws.Config{}), func(nc net.Conn, packets []byte) {
			_, err := nc.Write(append([]byte(wsRequest), wsFrame(0x82, packets)...))
			require.NoError(b, err)
			p := &wsPeer{b, nc, bufio.NewReader(nc)}
			res, err := http.ReadResponse(p.r, nil)
			require.NoError(b, err)
			require.Equal(b, http.StatusSwitchingProtocols, res.StatusCode)
			for got := 0; got < 9; {
				_, payload := p.frame()
				got += len(payload)
			}
		})
	})
}

func benchIdle(b *testing.B, r *rig, connect func(nc net.Conn, packets []byte)) {
	const n = 2000
	used := func() float64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapInuse + m.StackInuse)
	}
	before := used()
	open := make([]net.Conn, n)
	for i := range open {
		nc, err := net.Dial("tcp", r.srv.Addr().String())
		require.NoError(b, err)
		open[i] = nc
		id := fmt.Sprintf("idle%04d", i)
		connect(nc, append(connectPacket(b, wire.V311, id, 2), raw(b, "82 0d 0001 0008 'idle/cmd' 01")...))
	}
	perConn := (used() - before) / n
	for b.Loop() {
	}
	b.ReportMetric(perConn, "B/conn")
	for _, nc := range open {
		_ = nc.Close()
	}
	eventually(b, func() bool { return r.srv.Connections() == 0 }, "gone")
}
