package coap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

const (
	batchSize = 32
	// maxDatagram is the size of a receive buffer. What is larger does not fit
	// an Ethernet frame and is refused with 4.13.
	maxDatagram = 1500
	oobSize     = 128
	maxLocals   = 256
	sendBuffer  = 2 << 20
)

// batchConn is the part of ipv4.PacketConn and ipv6.PacketConn that moves
// several datagrams with one system call. Their Message is the same type.
type batchConn interface {
	ReadBatch(ms []ipv4.Message, flags int) (int, error)
	WriteBatch(ms []ipv4.Message, flags int) (int, error)
}

// local is an address of this host that a datagram was sent to.
type local struct {
	control []byte // makes the reply leave from that address; nil = the socket's own
	group   bool   // multicast or broadcast: nothing sent there is answered
}

// socket is one UDP socket with its buffers. read and its results belong to
// the reader goroutine.
type socket struct {
	conn   *net.UDPConn
	batch  batchConn
	in     []ipv4.Message
	wild   bool              // bound to all addresses: the destination counts
	v6     bool              // an IPv6 socket, which may serve IPv4 as well
	locals map[string]*local // by the control message as received
	own    local
}

// listen binds count sockets to one address.
func listen(ctx context.Context, bind string, count, receiveBuffer int) ([]*socket, error) {
	if count > 1 {
		// Sockets that share a port would also share it with another process
		// unnoticed: see first that nobody has it.
		probe, err := listenOne(ctx, bind, false, receiveBuffer)
		if err != nil {
			return nil, err
		}
		bind = probe.conn.LocalAddr().String()
		if err := probe.conn.Close(); err != nil {
			return nil, fmt.Errorf("release %s: %w", bind, err)
		}
	}
	var all []*socket
	for range count {
		s, err := listenOne(ctx, bind, count > 1, receiveBuffer)
		if err != nil {
			for _, s := range all {
				_ = s.conn.Close()
			}
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

func listenOne(ctx context.Context, bind string, shared bool, receiveBuffer int) (*socket, error) {
	lc := net.ListenConfig{}
	if shared {
		lc.Control = sharePort
	}
	pc, err := lc.ListenPacket(ctx, "udp", bind)
	if err != nil {
		return nil, fmt.Errorf("listen for coap on %s: %w", bind, err)
	}
	conn := pc.(*net.UDPConn)
	setBuffers(conn, receiveBuffer)
	s, err := newSocket(conn)
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("prepare socket %s: %w", bind, err)
	}
	return s, nil
}

func sharePort(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	})
	return errors.Join(err, failed)
}

// setBuffers asks for large buffers. The limit of the system applies unless
// the process may exceed it (CAP_NET_ADMIN); whatever results is used.
func setBuffers(conn *net.UDPConn, size int) {
	_ = conn.SetReadBuffer(size)
	_ = conn.SetWriteBuffer(sendBuffer)
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		forceReceiveBuffer(int(fd), size)
	})
}

func newSocket(conn *net.UDPConn) (s *socket, err error) {
	addr := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr()
	s = &socket{
		conn: conn, locals: make(map[string]*local), in: make([]ipv4.Message, batchSize),
		v6: addr.Is6() && !addr.Is4In6(), wild: addr.Unmap().IsUnspecified(),
	}
	s.own.group = addr.IsMulticast()
	if s.v6 {
		pc := ipv6.NewPacketConn(conn)
		s.batch = pc
		if s.wild {
			err = pc.SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true)
		}
	} else {
		pc := ipv4.NewPacketConn(conn)
		s.batch = pc
		if s.wild {
			err = pc.SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true)
		}
	}
	if err != nil {
		return nil, err
	}
	for i := range s.in {
		s.in[i].Buffers = [][]byte{make([]byte, maxDatagram)}
		s.in[i].OOB = make([]byte, oobSize)
	}
	return s, nil
}

// datagram is one received datagram; data is valid until the next read.
type datagram struct {
	from      netip.AddrPort
	addr      *net.UDPAddr // the same, as the system call wants it
	to        *local
	data      []byte
	truncated bool
}

// read blocks for at least one datagram.
func (s *socket) read() (int, error) {
	for i := range s.in {
		s.in[i].OOB = s.in[i].OOB[:oobSize]
	}
	return s.batch.ReadBatch(s.in, 0)
}

// datagram returns the i-th of those read; ok is false for one whose sender or
// destination must not be answered.
func (s *socket) datagram(i int) (d datagram, ok bool) {
	m := &s.in[i]
	d.addr, ok = m.Addr.(*net.UDPAddr)
	if !ok {
		return d, false
	}
	ap := d.addr.AddrPort()
	d.from = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	if src := d.from.Addr(); ap.Port() == 0 || !src.IsValid() || src.IsUnspecified() || src.IsMulticast() || isLimitedBroadcast(src) {
		return d, false
	}
	d.to = s.destination(m.OOB[:m.NN])
	d.data = m.Buffers[0][:m.N]
	d.truncated = m.Flags&unix.MSG_TRUNC != 0
	return d, !d.to.group
}

// destination finds the address that a datagram was sent to from its control
// message. There are few of them, so each is worked out once.
func (s *socket) destination(oob []byte) *local {
	if len(oob) == 0 {
		return &s.own
	}
	if l := s.locals[string(oob)]; l != nil {
		return l
	}
	if len(s.locals) >= maxLocals {
		clear(s.locals)
	}
	l := s.parseDestination(oob)
	s.locals[string(oob)] = l
	return l
}

func (s *socket) parseDestination(oob []byte) *local {
	var dst net.IP
	var link int
	if s.v6 {
		var cm ipv6.ControlMessage
		if cm.Parse(oob) == nil {
			dst, link = cm.Dst, cm.IfIndex
		}
	} else {
		var cm ipv4.ControlMessage
		if cm.Parse(oob) == nil {
			dst = cm.Dst
		}
	}
	switch {
	case dst == nil:
		return &s.own
	case dst.IsMulticast() || isBroadcast(dst):
		return &local{group: true}
	}
	return &local{control: replyControl(dst, link)}
}

// replyControl makes the control message that lets a reply leave from an
// address. An IPv4 peer of an IPv6 socket needs the IPv4 form.
func replyControl(src net.IP, link int) []byte {
	if src.To4() != nil {
		return (&ipv4.ControlMessage{Src: src}).Marshal()
	}
	cm := ipv6.ControlMessage{Src: src}
	if src.IsLinkLocalUnicast() {
		cm.IfIndex = link
	}
	return cm.Marshal()
}

func isLimitedBroadcast(a netip.Addr) bool {
	return a == netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// isBroadcast reports whether an address is the broadcast address of a network
// of this host.
func isBroadcast(ip net.IP) bool {
	ip4 := ip.To4()
	if ip4 == nil {
		return false
	}
	if ip4.Equal(net.IPv4bcast) {
		return true
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok || n.IP.To4() == nil || !n.Contains(ip4) {
			continue
		}
		if ones, bits := n.Mask.Size(); bits-ones < 2 {
			continue // point to point: no broadcast address
		}
		if isLast(n, ip4) {
			return true
		}
	}
	return false
}

// isLast reports whether all host bits of ip are set.
func isLast(n *net.IPNet, ip net.IP) bool {
	mask := n.Mask[len(n.Mask)-net.IPv4len:]
	for i := range ip {
		if ip[i]|mask[i] != 0xFF {
			return false
		}
	}
	return true
}

// outbox collects datagrams and sends them with as few system calls as
// possible. It belongs to the loop's mutex.
type outbox struct {
	batch batchConn
	msgs  []ipv4.Message
	bufs  [batchSize][maxReply]byte
	n     int
	// lost is called for each datagram that the system refused.
	lost func(error)
}

func newOutbox(batch batchConn, lost func(error)) *outbox {
	o := &outbox{batch: batch, msgs: make([]ipv4.Message, batchSize), lost: lost}
	for i := range o.msgs {
		o.msgs[i].Buffers = make([][]byte, 1)
	}
	return o
}

// put copies a datagram of at most maxReply bytes into the batch.
func (o *outbox) put(to *net.UDPAddr, from *local, data []byte) {
	if o.n == len(o.msgs) {
		o.flush()
	}
	m := &o.msgs[o.n]
	n := copy(o.bufs[o.n][:], data)
	m.Buffers[0] = o.bufs[o.n][:n]
	m.Addr, m.OOB = to, from.control
	o.n++
}

// flush sends what was put. A datagram that cannot be sent does not keep the
// others from being sent.
func (o *outbox) flush() {
	for pending := o.msgs[:o.n]; len(pending) > 0; {
		n, err := o.batch.WriteBatch(pending, 0)
		pending = pending[max(n, 0):]
		if err != nil && len(pending) > 0 {
			o.lost(err)
			pending = pending[1:]
		} else if n <= 0 {
			break
		}
	}
	o.n = 0
}
