package mqtt

import (
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// patience bounds every wait for something that takes moments. It is generous
// because a shared build machine may be busy.
const patience = 10 * time.Second

// Target is a server to judge.
type Target struct {
	// Addr is a listener that lets clients without credentials in: host:port or
	// tcp://host:port, tls://host:port, ws://host:port/path, wss://host:port/path,
	// quic://host:port or unix:/path. CheckAddress tells whether it is well formed.
	Addr string
	// WebSocket, if set, is a WebSocket listener to judge the server's use of
	// WebSocket by when Addr is none: as for Addr, or host:port. NoListener means
	// that the server cannot have one.
	WebSocket string
	// Refuses, if set, is a listener of the server that refuses clients without
	// credentials; as Addr.
	Refuses string
	// TLS says which servers to trust, and which certificate to show, on
	// transports with TLS; nil = those that the system trusts, and none.
	TLS *tls.Config
	// Certified, if set, is a tls:// address that requires client certificates,
	// of which Certificate is one that it takes.
	Certified   string
	Certificate *tls.Certificate
}

// NoListener stands for the address of a listener that a server cannot have.
const NoListener = "-"

// Result is how a server stands to a statement.
type Result uint8

// The results.
const (
	Holds      Result = iota
	Deviates          // it does something else
	NotOffered        // it lacks the feature and says so in the standard's way
	NotJudged         // the target gives no way to see it
)

// String returns the result as the document spells it.
func (r Result) String() string {
	return [...]string{"holds", "deviates", "not offered", "not judged"}[r]
}

// Verdict is the result of one check with what was seen.
type Verdict struct {
	Result Result
	Detail string
}

// C is what a check works with. It ends the check by a panic that Run catches.
type C struct {
	target Target
	v      byte // protocol version
	name   string
	peers  []*peer
	ids    []string // sessions to end afterwards
	topics []string // retained messages to clear afterwards
}

// Run judges a target by one statement. It returns when all of the check's
// connections are closed, and leaves no session and no retained message behind.
func Run(target Target, s *Statement) Verdict {
	c := &C{target: target, v: s.Version.level(), name: strings.ToLower(rand.Text()[:10])}
	defer c.tidy()
	return c.attempt(func() { s.check(c) })
}

// attempt runs a part of a check and returns how it ended.
func (c *C) attempt(part func()) (v Verdict) {
	defer func() {
		switch end := recover().(type) {
		case nil:
		case Verdict:
			v = end
		default:
			panic(end)
		}
	}()
	part()
	return Verdict{Result: Holds}
}

func (c *C) tidy() {
	hangUp := func() {
		for _, p := range c.peers {
			_ = p.nc.Close()
		}
	}
	hangUp()
	c.attempt(func() { // a server that deviates here has done so before
		for _, topic := range c.topics {
			p := c.connect(connect{})
			p.send(publication{topic: topic, retain: true}.encode(c.v))
			p.fence()
		}
		for _, id := range c.ids {
			c.connect(connect{id: id})
		}
	})
	hangUp()
}

// failf ends the check: the server deviates.
func (c *C) failf(format string, args ...any) {
	panic(Verdict{Deviates, fmt.Sprintf(format, args...)})
}

// require ends the check unless ok.
func (c *C) require(ok bool, format string, args ...any) {
	if !ok {
		c.failf(format, args...)
	}
}

// notOffered ends the check: the server lacks the feature and says so.
func (c *C) notOffered(how string) { panic(Verdict{NotOffered, how}) }

func (c *C) notJudged(why string) { panic(Verdict{NotJudged, why}) }

// is5 reports whether the check runs for version 5.
func (c *C) is5() bool { return c.v == v5 }

// topic is a topic name of this check alone.
func (c *C) topic(name string) string { return "conformance/" + c.name + "/" + name }

// client is a client identifier of this check alone, of characters that every
// server must take.
func (c *C) client(name string) string { return c.name + name }

// durable describes a client whose session outlives its connection.
func (c *C) durable(id string) connect {
	o := connect{id: id, keep: true}
	if c.is5() {
		o.props = [][]byte{propU32(pSessionExpiry, 60)}
	}
	return o
}

// dial opens a connection without sending anything.
func (c *C) dial() *peer { return c.dialTo(c.target.Addr) }

// dialTo is dial for another listener.
func (c *C) dialTo(addr string) *peer { return c.peerOn(c.open(addr)) }

func (c *C) peerOn(nc net.Conn, err error) *peer {
	if err != nil {
		c.failf("no connection: %v", err)
	}
	p := newPeer(c, nc)
	c.peers = append(c.peers, p)
	return p
}

// connect opens a connection that the server must accept. The CONNACK is in
// the peer.
func (c *C) connect(o connect) *peer {
	p := c.dial()
	p.join(o)
	return p
}

// join sends CONNECT and reads the CONNACK, which must accept.
func (p *peer) join(o connect) {
	c := p.c
	if o.id == "" {
		o.id = c.client(fmt.Sprint(len(c.peers)))
	}
	if o.keep || c.is5() && len(o.props) > 0 {
		c.ids = append(c.ids, o.id)
	}
	p.id = o.id
	p.send(o.encode(c.v))
	p.ack = p.expect(connackType)
	c.require(p.ack.code == 0, "CONNECT is refused with %#02x", p.ack.code)
}

// subscriber is a new client with a subscription.
func (c *C) subscriber(options byte, topics ...string) *peer {
	p := c.connect(connect{})
	p.subscribe(options, topics...)
	return p
}

// refuseConnect sends a CONNECT that must not be accepted, and returns the
// CONNACK if there was one. A reason code of version 5 must be one of codes.
func (c *C) refuseConnect(raw []byte, codes ...byte) *packet {
	p := c.dial()
	p.send(raw)
	return p.turnedAway(codes...)
}

// turnedAway waits for the end of a connection whose CONNECT must be refused.
func (p *peer) turnedAway(codes ...byte) (ack *packet) {
	c := p.c
	got, err := p.next(patience)
	if err == nil {
		c.require(got.kind == connackType, "answer to a CONNECT that must be refused: %s", got)
		c.require(got.code != 0, "CONNECT is accepted")
		c.require(!got.present, "a CONNACK that refuses says that a session is present")
		if c.is5() && len(codes) > 0 {
			c.oneOf(got.code, codes, "reason code of CONNACK")
		}
		ack = got
	}
	p.closed(err)
	return ack
}

func (c *C) oneOf(code byte, codes []byte, what string) {
	c.require(slices.Contains(codes, code), "%s is %#02x, not one of %#02x", what, code, codes)
}

// retain publishes a retained message and remembers to clear it.
func (c *C) retain(p *peer, m publication) {
	m.retain = true
	c.topics = append(c.topics, m.topic)
	p.publish(m)
}
