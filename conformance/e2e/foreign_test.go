//go:build unix

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// note is a message as a foreign client hands it over.
type note struct {
	topic, payload string
	qos            byte
	retained       bool
}

func (n note) String() string {
	return fmt.Sprintf("%s %.20q (%d bytes) QoS %d retained %v", n.topic, n.payload, len(n.payload), n.qos, n.retained)
}

// foreign is a connected client of another code base.
type foreign interface {
	subscribe(filter string, qos byte) error
	publish(n note) error
	// inbox gives what arrives, in order.
	inbox() <-chan note
	// leave disconnects in order.
	leave()
	// abandon frees a client whose connection is lost.
	abandon()
}

// visit is how a client connects.
type visit struct {
	id    string
	clean bool // no session before and after
	will  *note
	cable *cable
}

// opener connects a client, and tells whether the gateway had its session.
type opener func(t testing.TB, v visit) (f foreign, present bool)

// roundOf has clients of one code base, over one transport, do what clients do.
// Version 3.1 has no way to tell that a session was there.
func roundOf(t *testing.T, version string, lay func() *cable, open opener) {
	place := strings.ReplaceAll(strings.ToLower(t.Name()), "/", "-")
	name := func(s string) string { return fmt.Sprintf("%s-%s", s, place) }
	sub, present := open(t, visit{id: name("sub"), cable: lay()})
	require.False(t, present)
	require.NoError(t, sub.subscribe(place+"/#", 2))
	wire := lay()
	pub, _ := open(t, visit{id: name("pub"), clean: true, will: &note{topic: place + "/will", payload: "lost", qos: 1}, cable: wire})

	for _, size := range []int{0, 100, 70_000} {
		for qos := range byte(3) {
			sent := note{topic: fmt.Sprintf("%s/%d", place, size), payload: strings.Repeat("x", size), qos: qos}
			require.NoError(t, pub.publish(sent))
			next(t, sub, sent)
		}
	}

	state := note{topic: place + "/state", payload: "on", qos: 1, retained: true}
	require.NoError(t, pub.publish(state))
	next(t, sub, note{topic: state.topic, payload: "on", qos: 1})
	late, _ := open(t, visit{id: name("late"), clean: true, cable: lay()})
	require.NoError(t, late.subscribe(state.topic, 1))
	next(t, late, state)
	require.NoError(t, pub.publish(note{topic: state.topic, qos: 1, retained: true}))
	next(t, late, note{topic: state.topic, qos: 1})
	next(t, sub, note{topic: state.topic, qos: 1})
	late.leave()

	sub.leave()
	for i := range 6 {
		require.NoError(t, pub.publish(note{topic: place + "/away", payload: fmt.Sprint(i), qos: byte(1 + i%2)}))
	}
	sub, present = open(t, visit{id: name("sub"), cable: lay()})
	require.Equal(t, version != "31", present, "the session is there")
	for i := range 6 {
		next(t, sub, note{topic: place + "/away", payload: fmt.Sprint(i), qos: byte(1 + i%2)})
	}

	wire.cut()
	next(t, sub, note{topic: place + "/will", payload: "lost", qos: 1})
	pub.abandon()
	sub.leave()
}

// next takes a message, which must be the given one.
func next(t testing.TB, f foreign, want note) {
	t.Helper()
	select {
	case got := <-f.inbox():
		require.Equal(t, want.String(), got.String())
		require.Equal(t, want.payload, got.payload)
	case <-time.After(patience):
		t.Fatalf("%s does not come", want)
	}
}
