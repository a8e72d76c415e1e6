package mqtt

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"gantry/broker"
	"gantry/protocols/mqtt/wire"
)

// seqMessage is one message that the server has accepted.
type seqMessage struct {
	number  int
	topic   string
	qos     broker.QoS
	from    string // client identifier
	large   bool
	empty   bool                 // it clears the retained value
	expires time.Time            // zero = never
	groups  map[string]bool      // the shared filters that match
	members map[string][]*seqSub // who was to choose from
	done    map[*seqSession]bool // who acknowledged it
	shares  []seqShare           // deliveries that came by them
}

// seqShare is a delivery to a member of a shared subscription.
type seqShare struct {
	session *seqSession
	qos     broker.QoS
}

func (m *seqMessage) payload() string {
	if m.empty {
		return ""
	}
	if m.large {
		return fmt.Sprintf("%d %s", m.number, strings.Repeat("x", seqLarge))
	}
	return fmt.Sprint(m.number, " ")
}

// seqSession is what a session must be.
type seqSession struct {
	id       string
	dead     bool
	conn     *seqPeer // nil = away
	expiry   time.Duration
	detached time.Time
	durable  bool // it was begun with an expiry
	limited  bool // a connection of it did not take large messages
	blurred  bool // a connection ended while it did not read: it may not know what was sent
	subs     map[string]*seqSub
	shared   map[string]bool // the shared filters that it ever had
	topics   map[string]bool // those that it may ever have got
	nextID   uint16
	received map[uint16]*seqMessage // its QoS 2 publishes that wait for PUBREL

	window   []*seqEntry
	live     map[*seqMessage][]broker.QoS // what it must get
	retained map[*seqMessage][]broker.QoS // what it may get as retained value
	newest   map[seqOrder]int
}

// seqSub is a subscription, the same as long as it is only replaced.
type seqSub struct {
	qos     broker.QoS
	noLocal bool
}

// seqEntry is a delivery that is not completed.
type seqEntry struct {
	id        uint16
	m         *seqMessage // nil for one with an empty payload
	qos       broker.QoS
	seen      bool // on this connection
	counted   bool // against the window of this connection
	received  bool // PUBREC was sent
	released  bool // PUBREL came on this connection
	maybeGone bool // too large for a connection that was there: the server may have dropped it
}

// seqOrder is what keeps its order: messages of one publisher, topic and QoS.
type seqOrder struct {
	from, topic string
	qos         broker.QoS
}

func newSeqSession(id string) *seqSession {
	return &seqSession{
		id: id, subs: map[string]*seqSub{}, shared: map[string]bool{}, received: map[uint16]*seqMessage{},
		topics: map[string]bool{}, live: map[*seqMessage][]broker.QoS{}, retained: map[*seqMessage][]broker.QoS{},
		newest: map[seqOrder]int{},
	}
}

// seqMatches is a second opinion on topic matching.
func seqMatches(filter, topic string) bool {
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	for i, level := range f {
		switch {
		case level == "#":
			return true
		case i == len(t):
			return false
		case level != "+" && level != t[i]:
			return false
		}
	}
	return len(f) == len(t)
}

// seqInner is the filter that a shared filter wraps.
func seqInner(filter string) (inner string, shared bool) {
	if rest, ok := strings.CutPrefix(filter, "$share/"); ok {
		_, inner, _ = strings.Cut(rest, "/")
		return inner, true
	}
	return filter, false
}

// published notes a message that the server must have accepted.
func (q *sequence) published(m *seqMessage) {
	m.groups, m.members, m.done = map[string]bool{}, map[string][]*seqSub{}, map[*seqSession]bool{}
	for _, s := range q.sessions {
		granted, match := broker.QoS(0), false
		for filter, sub := range s.subs {
			inner, shared := seqInner(filter)
			if !seqMatches(inner, m.topic) || sub.noLocal && s.id == m.from {
				continue
			}
			s.topics[m.topic] = true
			if shared {
				m.groups[filter] = true
				m.members[filter] = append(m.members[filter], sub)
				continue
			}
			granted, match = max(granted, sub.qos), true
		}
		qos := min(granted, m.qos)
		if match && (qos > 0 || s.conn != nil) {
			s.live[m] = append(s.live[m], qos)
		}
	}
}

// end ends a session.
func (q *sequence) end(s *seqSession) {
	s.dead = true
	delete(q.sessions, s.id)
}

// detach takes a session from its connection. What has QoS 0 does not wait.
func (q *sequence) detach(s *seqSession) {
	s.conn, s.detached = nil, time.Now()
	for _, all := range []map[*seqMessage][]broker.QoS{s.live, s.retained} {
		for m, qs := range all {
			all[m] = slices.DeleteFunc(qs, func(q broker.QoS) bool { return q == 0 })
		}
	}
	if s.expiry == 0 {
		q.end(s)
	}
}

// attach gives a kept session a connection.
func (s *seqSession) attach(p *seqPeer, limited bool) {
	s.conn, p.session = p, s
	s.limited = s.limited || limited
	for _, e := range s.window {
		e.seen, e.counted, e.released = false, false, false
		e.maybeGone = e.maybeGone || limited && e.m != nil && e.m.large
	}
}

// delivered judges a PUBLISH.
func (q *sequence) delivered(c *seqPeer, p *wire.Publish) {
	t, s := q.t, c.session
	topic := string(p.Topic)
	if topic == "" {
		topic = c.aliases[p.Alias]
	} else if p.Alias > 0 {
		c.aliases[p.Alias] = topic
	}
	m := q.message(string(p.Payload))
	require.True(t, s.topics[topic], "%s got %s without a subscription that ever matched", s.id, topic)
	if m != nil {
		require.Equal(t, m.topic, topic)
		require.Equal(t, m.payload(), string(p.Payload))
	}
	if p.Dup {
		q.redelivered(c, p, m)
		return
	}
	if m != nil {
		q.first(s, p, m)
	}
	if p.QoS == 0 {
		return
	}
	for _, e := range s.window {
		require.NotEqual(t, e.id, p.PacketID, "identifier in use")
		require.True(t, e.seen || e.received || e.maybeGone, "%s: a new message before the old window", s.id)
	}
	s.window = append(s.window, &seqEntry{id: p.PacketID, m: m, qos: p.QoS, seen: true, counted: true})
	q.windowFits(c)
}

// first judges the first delivery of a message to a session.
func (q *sequence) first(s *seqSession, p *wire.Publish, m *seqMessage) {
	t := q.t
	require.True(t, m.expires.IsZero() || time.Now().Before(m.expires), "message %d has expired", m.number)
	if p.Retain {
		require.True(t, take(s.retained, m, p.QoS), "%s: message %d is no retained value for it", s.id, m.number)
		return
	}
	if !take(s.live, m, p.QoS) {
		q.shared(s, p, m)
		return
	}
	for group := range m.groups {
		if s.shared[group] {
			return // it may have taken another way, and has no order then
		}
	}
	order := seqOrder{m.from, m.topic, p.QoS}
	require.Greater(t, m.number, s.newest[order], "%s: order of %v", s.id, order)
	s.newest[order] = m.number
}

// shared judges a delivery that can only have come by a shared subscription.
func (q *sequence) shared(s *seqSession, p *wire.Publish, m *seqMessage) {
	m.shares = append(m.shares, seqShare{s, p.QoS})
	require.True(q.t, m.explained(0, map[string]*seqShare{}, nil), "%s got message %d on %s with QoS %d", s.id, m.number, m.topic, p.QoS)
}

// explained reports whether the deliveries from the k-th on can have come by
// the shared subscriptions: of each, one member gets the message, and another
// one only when the session of that one has ended and it was sent with QoS 1
// [MQTT-4.8.2-5].
// got is who had it by each of them last; of those in must somebody must have it
// who has acknowledged it, or is there to do so.
func (m *seqMessage) explained(k int, got map[string]*seqShare, must []string) bool {
	if k == len(m.shares) {
		return !slices.ContainsFunc(must, func(group string) bool {
			last := got[group]
			return last == nil || last.qos == 1 && last.session.dead && !m.done[last.session]
		})
	}
	d := &m.shares[k]
	for group := range m.groups {
		last := got[group]
		if !d.session.shared[group] || last != nil && (!last.session.dead || last.qos != 1) {
			continue
		}
		got[group] = d
		if m.explained(k+1, got, must) {
			return true
		}
		got[group] = last
	}
	return false
}

// sharedCame looks for messages of a shared subscription that nobody got
// although this session was a member all the time.
func (q *sequence) sharedCame(s *seqSession) {
	for _, m := range q.messages {
		var must []string
		for group := range m.groups {
			if sub := s.subs[group]; sub != nil && slices.Contains(m.members[group], sub) && !q.loose[group] {
				must = append(must, group)
			}
		}
		if m.qos > 0 && m.expires.IsZero() && !m.large {
			require.True(q.t, m.explained(0, map[string]*seqShare{}, must), "message %d is lost for all members of one of %v", m.number, must)
		}
	}
}

// take removes one expected delivery.
func take(from map[*seqMessage][]broker.QoS, m *seqMessage, qos broker.QoS) bool {
	i := slices.Index(from[m], qos)
	if i < 0 {
		return false
	}
	from[m] = slices.Delete(from[m], i, i+1)
	return true
}

func (q *sequence) redelivered(c *seqPeer, p *wire.Publish, m *seqMessage) {
	s := c.session
	i := slices.IndexFunc(s.window, func(e *seqEntry) bool { return e.id == p.PacketID })
	if i < 0 && s.blurred {
		if m != nil {
			q.first(s, p, m)
		}
		i, s.window = len(s.window), append(s.window, &seqEntry{id: p.PacketID, m: m, qos: p.QoS})
	}
	require.GreaterOrEqual(q.t, i, 0, "%s: DUP for what it never got, or has completed", s.id)
	e := s.window[i]
	require.True(q.t, e.m == m && e.qos == p.QoS && !e.received && !e.seen, "%s: redelivery of another message", s.id)
	require.Greater(q.t, i, c.seen, "%s: redelivered out of order", s.id)
	c.seen, e.seen, e.counted = i, true, true
	q.windowFits(c)
}

func (q *sequence) windowFits(c *seqPeer) {
	n := 0
	for _, e := range c.session.window {
		if e.counted {
			n++
		}
	}
	require.LessOrEqual(q.t, n, c.limit, "%s: window exceeded", c.session.id)
}

// completed takes an entry out of the window.
func (s *seqSession) completed(e *seqEntry) {
	if e.m != nil {
		e.m.done[s] = true
	}
	i := slices.Index(s.window, e)
	s.window = slices.Delete(s.window, i, i+1)
	if s.conn != nil && i <= s.conn.seen {
		s.conn.seen--
	}
}

// message finds the message of a payload; an empty one clears a retained value
// and has none.
func (q *sequence) message(payload string) *seqMessage {
	if payload == "" {
		return nil
	}
	n := 0
	_, err := fmt.Sscan(payload, &n)
	require.NoError(q.t, err, "payload %q", payload)
	require.Contains(q.t, q.messages, n)
	return q.messages[n]
}
