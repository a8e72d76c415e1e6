package quic

import (
	"context"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"gantry/protocols/mqtt/wire"
)

// dataStreams is how many streams a client may have beside the control stream.
const dataStreams = 15

// mux makes one MQTT connection of several streams, for package mqtt, which
// knows of one.
//
// The first stream is the control stream, with everything that one stream can
// have. The data streams, which are accepted behind CONNACK, carry PUBLISH, its
// acknowledgements, SUBSCRIBE and UNSUBSCRIBE. Each has packet identifiers of
// its own for what the client begins: they are replaced by ones that no other
// stream uses, and the answers go back to the stream with the old ones. What
// the server begins has the identifiers of the session everywhere. A message
// goes to the stream whose SUBSCRIBE it matches.
//
//	streams --whole packets--> frames --> Read     of package mqtt
//	streams <------------- write, by packet -- Write
type mux struct {
	c       *Conn
	closing <-chan struct{} // the QUIC connection has ended
	frames  chan frame      // one at a time: who sends waits until it was read
	rest    frame           // what Read has not returned yet; owned by the reader
	readBy  *deadline
	writeBy *deadline
	alive   lifeSigns
	start   sync.Once
	accept  sync.Once
	wg      sync.WaitGroup // all goroutines; Conn.end waits for them

	down    chan struct{} // closed when the control stream can no longer be read
	err     error         // why; set before down is closed
	version wire.Version  // set by the control stream with CONNECT, before any data stream is there

	mu       sync.Mutex // covers everything below, and what is said so of streams
	control  *stream
	ids      ids
	routes   routes
	disowned []*stream          // aborted ones of which filters are to be unsubscribed
	release  map[uint16]*pubrel // by identifier of a QoS 2 delivery; those of the control stream are not there
	late     []byte             // packets that ended data streams did not get, for the control stream
	pings    int                // PINGRESPs to drop: answers to what the client did not send
}

// pubrel is where the PUBREL of a delivery goes: to the data stream on which the
// client has sent PUBREC.
type pubrel struct {
	st   *stream
	sent bool // it is on its way, and PUBCOMP is waited for
}

// frame is one or more whole packets of a stream.
type frame struct {
	b    []byte
	late func() []byte // in place of b: makes it when Read takes the frame; may give nothing
	from *stream
}

func newMux(c *Conn) *mux {
	m := &mux{
		c: c, closing: c.qc.Context().Done(), frames: make(chan frame),
		readBy: newDeadline(), writeBy: newDeadline(), alive: lifeSigns{base: time.Now()}, down: make(chan struct{}), release: make(map[uint16]*pubrel),
	}
	m.ids.init()
	return m
}

// read is Conn.Read.
func (m *mux) read(p []byte) (int, error) {
	m.start.Do(func() { m.wg.Go(m.runControl) })
	timeout := m.readBy.wait()
	select {
	case <-timeout:
		return 0, os.ErrDeadlineExceeded
	default:
	}
	for len(m.rest.b) == 0 {
		select {
		case m.rest = <-m.frames:
		case <-timeout:
			return 0, os.ErrDeadlineExceeded
		case <-m.down:
			return 0, m.err
		}
		if m.rest.late != nil {
			m.rest.b = m.rest.late()
		}
		if len(m.rest.b) == 0 {
			m.finished()
		}
	}
	n := copy(p, m.rest.b)
	if m.rest.b = m.rest.b[n:]; len(m.rest.b) == 0 {
		m.finished()
	}
	return n, nil
}

// finished tells who has delivered a frame that it was read.
func (m *mux) finished() {
	select {
	case m.rest.from.read <- struct{}{}:
	case <-m.closing: // who has delivered it may wait no more
	}
	m.rest = frame{}
}

// deliver hands bytes to Read and waits until they were read. It reports false
// when the connection has ended. Only the reader of from may call it.
func (m *mux) deliver(b []byte, from *stream) bool { return m.hand(frame{b: b, from: from}) }

func (m *mux) hand(f frame) bool {
	select {
	case <-m.closing:
		return false
	default:
	}
	select {
	case m.frames <- f:
	case <-m.closing:
		return false
	}
	select {
	case <-f.from.read:
		return true
	case <-m.closing:
		return false
	}
}

// disown notes the filters of an aborted stream that are to be unsubscribed: not
// those that the client asks for on another stream. Caller holds mu.
func (m *mux) disown(st *stream, filters []string) {
	asked := m.ids.allAsked()
	st.unwanted = slices.DeleteFunc(filters, func(f string) bool { return asked[f] })
	m.disowned = append(m.disowned, st)
}

// claim keeps filters that the client subscribes to from being unsubscribed with
// a stream that had them before. Caller holds mu.
func (m *mux) claim(filters []string) {
	for _, st := range m.disowned {
		st.unwanted = slices.DeleteFunc(st.unwanted, func(f string) bool { return slices.Contains(filters, f) })
	}
}

// close waits for the goroutines. The QUIC connection must have ended.
func (m *mux) close() {
	m.wg.Wait()
	m.readBy.stop()
	m.writeBy.stop()
}

// runControl serves the control stream: its end is the end of all.
func (m *mux) runControl() {
	s, err := m.c.qc.AcceptStream(m.c.qc.Context())
	if err == nil {
		st := newStream(m, s)
		st.control = true
		s.SetPriority(0, true) // before the data streams
		m.mu.Lock()
		m.control = st
		m.mu.Unlock()
		m.c.setStream(s)
		err = st.receive()
	}
	m.err = err
	if m.err == nil {
		m.err = io.EOF
	}
	close(m.down)
}

// welcome lets data streams in: the client has its CONNACK.
func (m *mux) welcome() {
	m.accept.Do(func() { m.wg.Go(m.acceptStreams) })
}

func (m *mux) acceptStreams() {
	for {
		s, err := m.c.qc.AcceptStream(context.Background()) // ends with the connection
		if err != nil {
			return
		}
		st := newStream(m, s)
		m.wg.Go(st.run)
	}
}
