package mqtt

import (
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/protocols/mqtt/wire"
)

// duplex is one end of a connection in memory, each direction a pipe of its
// own, so that it can be closed by half. Unlike a socket it lets synctest see
// that everybody waits.
type duplex struct {
	net.Conn // reading
	out      net.Conn
}

func newDuplex() (client, server duplex) {
	up, upEnd := net.Pipe()
	down, downEnd := net.Pipe()
	return duplex{downEnd, up}, duplex{upEnd, down}
}

func (d duplex) Write(b []byte) (int, error)        { return d.out.Write(b) }
func (d duplex) CloseWrite() error                  { return d.out.Close() }
func (d duplex) SetWriteDeadline(t time.Time) error { return d.out.SetWriteDeadline(t) }
func (d duplex) Close() error                       { return errors.Join(d.Conn.Close(), d.out.Close()) }

// memoryListener accepts what dial made.
type memoryListener struct {
	ready chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newMemoryListener() *memoryListener {
	return &memoryListener{ready: make(chan net.Conn), done: make(chan struct{})}
}

func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case nc := <-l.ready:
		return nc, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *memoryListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (*memoryListener) Addr() net.Addr { return &net.UnixAddr{Name: "memory"} }

// seqPeer is one connection of a client of the sequence fuzzer. A goroutine
// reads for it as long as it is not stalled.
type seqPeer struct {
	t       testing.TB
	nc      net.Conn
	v       wire.Version
	id      string
	session *seqSession
	limit   int // how many QoS 1 and 2 deliveries it takes unacknowledged
	aliases map[uint16]string
	open    map[uint16]bool // its QoS 2 publishes that count against the server's Receive Maximum
	hurried int             // its QoS 1 publishes of the burst that goes on
	nextSub uint16

	acks    []seqAck    // acknowledgements that must come, in order
	replies []seqAck    // SUBACK, UNSUBACK and PINGRESP that must come, in order
	ends    bool        // the server must end the connection
	code    byte        // with this code in DISCONNECT, if not 0
	seen    int         // position in the session's window of the last redelivery
	last    wire.Header // the last packet that came

	mu      sync.Mutex
	cond    sync.Cond
	stalled bool
	in      []byte
	eof     bool
}

// seqAck is a packet that must come.
type seqAck struct {
	kind wire.Type
	id   uint16
	code int // -1 = any below 0x80
}

func (l *memoryListener) dial(t testing.TB, id string, v wire.Version) *seqPeer {
	client, server := newDuplex()
	p := &seqPeer{t: t, id: id, nc: client, v: v, aliases: map[uint16]string{}, open: map[uint16]bool{}, seen: -1}
	p.cond.L = &p.mu
	l.ready <- server
	go p.read()
	return p
}

func (p *seqPeer) read() {
	buf := make([]byte, 4096)
	for {
		p.mu.Lock()
		for p.stalled {
			p.cond.Wait()
		}
		p.mu.Unlock()
		n, err := p.nc.Read(buf)
		p.mu.Lock()
		p.in = append(p.in, buf[:n]...)
		p.eof = err != nil
		p.mu.Unlock()
		if err != nil {
			_ = p.nc.Close()
			return
		}
	}
}

func (p *seqPeer) stall(yes bool) {
	p.mu.Lock()
	p.stalled = yes
	p.cond.Broadcast()
	p.mu.Unlock()
}

// write sends bytes in pieces of at most chunk, 0 for one piece. The server may
// have closed meanwhile.
func (p *seqPeer) write(b []byte, chunk int) {
	p.t.Logf("%s → % x", p.id, b[:min(len(b), 40)])
	require.NoError(p.t, p.nc.SetWriteDeadline(time.Now().Add(time.Minute)))
	for len(b) > 0 {
		n := len(b)
		if chunk > 0 {
			n = min(n, chunk)
		}
		_, err := p.nc.Write(b[:n])
		require.True(p.t, err == nil || errors.Is(err, io.ErrClosedPipe), "the server has stopped reading: %v", err)
		b = b[n:]
	}
}

// packets takes the whole packets that have come.
func (p *seqPeer) packets(visit func(wire.Header, []byte)) {
	p.mu.Lock()
	in := p.in
	p.in = nil
	p.mu.Unlock()
	for len(in) > 0 {
		h, ok, err := wire.ParseHeader(in, p.v)
		require.NoError(p.t, err)
		if !ok || h.Total() > len(in) {
			require.True(p.t, p.stalled, "half a packet: % x", in)
			p.mu.Lock()
			p.in = append(slices.Clone(in), p.in...)
			p.mu.Unlock()
			return
		}
		p.t.Logf("%s ← %s % x", p.id, h.Type, in[:min(h.Total(), 40)])
		visit(h, in[h.Size:h.Total()])
		p.last = h
		in = in[h.Total():]
	}
}

func (p *seqPeer) closed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.eof
}

// seqPacket puts a packet together.
func seqPacket(first byte, parts ...any) []byte {
	var b []byte
	for _, part := range parts {
		switch x := part.(type) {
		case int:
			b = append(b, byte(x))
		case uint16:
			b = append(b, byte(x>>8), byte(x))
		case string: // an MQTT string
			b = append(append(b, byte(len(x)>>8), byte(len(x))), x...)
		case []byte:
			b = append(b, x...)
		}
	}
	head := []byte{first}
	n := len(b)
	for ; n >= 128; n >>= 7 {
		head = append(head, byte(n)|128)
	}
	return append(append(head, byte(n)), b...)
}

// props is a property block, which versions before 5 do not have.
func (p *seqPeer) props(parts ...any) []byte {
	if p.v != wire.V5 {
		return nil
	}
	block := seqPacket(0, parts...)[1:]
	return block
}
