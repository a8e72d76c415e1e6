//go:build unix

package mqtt

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestGantry holds gantry to every statement of both versions, over each
// transport.
func TestGantry(t *testing.T) {
	t.Parallel()
	targets := gantryTargets(t)
	for _, transport := range Transports {
		t.Run(string(transport), func(t *testing.T) {
			t.Parallel()
			if testing.Short() && transport != TCP {
				t.Skip("-short: only over TCP")
			}
			for _, v := range []Version{MQTT5, MQTT311} {
				t.Run(string(v), func(t *testing.T) {
					t.Parallel()
					compare(t, targets[transport], Statements(v), Gantry)
				})
			}
		})
	}
}

// TestMosquitto checks the suite itself: a server of another code base is
// judged, and what it does is on record.
func TestMosquitto(t *testing.T) {
	t.Parallel()
	target := startMosquitto(t)
	for _, v := range []Version{MQTT5, MQTT311} {
		t.Run(string(v), func(t *testing.T) { compare(t, target, Statements(v), Mosquitto) })
	}
}

// TestPitfalls holds gantry to what has gone wrong elsewhere.
func TestPitfalls(t *testing.T) {
	t.Parallel()
	target := gantryTargets(t)[TCP]
	for _, p := range Pitfalls() {
		t.Run(p.Name, func(t *testing.T) {
			t.Parallel()
			got := Try(target, &p)
			require.Equal(t, Holds, got.Result, "%s: %s", p.Text, got.Detail)
		})
	}
}

// TestRules holds gantry to what its transports demand.
func TestRules(t *testing.T) {
	t.Parallel()
	targets := gantryTargets(t)
	for _, transport := range Transports {
		for _, r := range Rules(transport) {
			t.Run(string(transport)+"/"+r.Name, func(t *testing.T) {
				t.Parallel()
				got := Try(targets[transport], &r.Pitfall)
				require.Equal(t, Holds, got.Result, "%s: %s", r.Text, got.Detail)
			})
		}
	}
}

// compare runs each statement that has a check. The verdict must be the
// recorded one.
func compare(t *testing.T, target Target, statements []Statement, b Broker) {
	for i := range statements {
		s := &statements[i]
		if !s.Checked() {
			continue
		}
		t.Run(s.ID, func(t *testing.T) {
			t.Parallel()
			got, want := Run(target, s), Recorded(b, s)
			if got.Detail != "" {
				t.Logf("%s: %s", got.Result, got.Detail)
			}
			require.Equal(t, want.Result, got.Result, "MQTT %s [MQTT-%s] %s: %s", s.Version, s.ID, s.Text, got.Detail)
		})
	}
}
