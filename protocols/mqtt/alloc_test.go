//go:build !race

// Under the race detector sync.Pool drops at random what it is given.

package mqtt

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"runtime/debug"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/broker"
	"gantry/protocols/mqtt/wire"
)

// allocBatch is how many messages go together: what is allocated per read,
// write or goroutine is divided by it.
const allocBatch = 50

// TestNothingIsAllocatedBesideTheMessage holds that on its way from one
// client to another, acknowledgements of both included, a message costs one
// allocation: the message itself with its payload.
func TestNothingIsAllocatedBesideTheMessage(t *testing.T) {
	for _, v := range []wire.Version{wire.V311, wire.V5} {
		for qos := range broker.QoS(3) {
			t.Run(fmt.Sprintf("version %d, QoS %d", v, qos), func(t *testing.T) {
				defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection empties the pools
				x := newAllocExchange(newRig(t, Config{}), v, qos)
				for range 5 { // the buffers find their sizes, the pools fill
					x.run()
				}
				each := testing.AllocsPerRun(100, x.run) / allocBatch
				require.GreaterOrEqual(t, each, 1.0, "the message itself is not seen: what is measured?")
				require.Less(t, each, 1.25)
			})
		}
	}
}

// allocExchange sends batches of messages from one client to another without
// allocating anything itself.
type allocExchange struct {
	qos       broker.QoS
	pub, sub  *peer
	publishes []byte // of the publisher, identifiers 1 to allocBatch
	deliver   []byte // room for what the subscriber gets
	acks, got []byte // acknowledgements: to send or wanted, and what came
	ids       []byte // of the deliveries, two bytes each
}

func newAllocExchange(r *rig, v wire.Version, qos broker.QoS) *allocExchange {
	x := &allocExchange{qos: qos, pub: r.connect(v, "pub", 2), sub: r.connect(v, "sub", 2)}
	properties := ""
	if v == wire.V5 {
		properties = "00"
	}
	x.sub.send(fmt.Sprintf("82 %02x 0001 %s 0003 'a/b' %02x", 8+len(properties)/2, properties, qos))
	x.sub.expect(fmt.Sprintf("90 %02x 0001 %s %02x", 3+len(properties)/2, properties, qos))
	for id := range allocBatch {
		out := wire.Outgoing{
			Message: &broker.Message{Topic: "a/b", Payload: make([]byte, 100)}, Version: v, QoS: qos, PacketID: uint16(id + 1),
		}
		out.Measure()
		x.publishes = out.Append(x.publishes)
	}
	x.deliver = make([]byte, len(x.publishes))
	x.acks, x.got = make([]byte, 4*allocBatch), make([]byte, 4*allocBatch)
	x.ids = make([]byte, 2*allocBatch)
	for _, p := range []*peer{x.pub, x.sub} {
		require.NoError(r.t, p.nc.SetDeadline(time.Now().Add(10*patience)))
	}
	return x
}

func (x *allocExchange) run() {
	x.write(x.pub, x.publishes)
	x.read(x.sub, x.deliver)
	if x.qos == 0 {
		return
	}
	for i := range allocBatch {
		binary.BigEndian.PutUint16(x.ids[2*i:], uint16(i+1))
	}
	if x.qos == 1 {
		x.expect(x.pub, wire.PUBACK)
	} else {
		x.expect(x.pub, wire.PUBREC)
		x.answer(x.pub, wire.PUBREL)
		x.expect(x.pub, wire.PUBCOMP)
	}
	size := len(x.deliver) / allocBatch
	for i := range allocBatch {
		copy(x.ids[2*i:2*i+2], x.deliver[i*size+2+2+len("a/b"):])
	}
	if x.qos == 1 {
		x.answer(x.sub, wire.PUBACK)
		return
	}
	x.answer(x.sub, wire.PUBREC)
	x.expect(x.sub, wire.PUBREL)
	x.answer(x.sub, wire.PUBCOMP)
}

// answer sends one acknowledgement for each of ids.
func (x *allocExchange) answer(p *peer, t wire.Type) {
	x.fill(t)
	x.write(p, x.acks)
}

// expect reads one acknowledgement for each of ids.
func (x *allocExchange) expect(p *peer, t wire.Type) {
	x.read(p, x.got)
	x.fill(t)
	if !bytes.Equal(x.acks, x.got) {
		p.t.Fatalf("want % x, got % x", x.acks, x.got)
	}
}

func (x *allocExchange) fill(t wire.Type) {
	head := byte(t) << 4
	if t == wire.PUBREL {
		head |= 2
	}
	for i := range allocBatch {
		a := x.acks[4*i : 4*i+4]
		a[0], a[1], a[2], a[3] = head, 2, x.ids[2*i], x.ids[2*i+1]
	}
}

func (x *allocExchange) write(p *peer, b []byte) {
	if _, err := p.nc.Write(b); err != nil {
		p.t.Fatal(err)
	}
}

func (x *allocExchange) read(p *peer, b []byte) {
	if _, err := io.ReadFull(p.nc, b); err != nil {
		p.t.Fatal(err)
	}
}
