//go:build unix

package mqtt

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMQTT5(t *testing.T)   { judge(t, MQTT5) }
func TestMQTT311(t *testing.T) { judge(t, MQTT311) }

// TestMosquitto checks the suite itself: a server of another code base is
// judged, and what it does is on record.
func TestMosquitto(t *testing.T) {
	if *targetFlag != "" {
		t.Skip("another target is given")
	}
	target := startMosquitto(t)
	for _, v := range []Version{MQTT5, MQTT311} {
		t.Run(string(v), func(t *testing.T) { compare(t, target, Statements(v), Mosquitto) })
	}
}

// judge runs the statements of a version against gantry, or the given target.
func judge(t *testing.T, v Version) {
	if *targetFlag == "" {
		compare(t, startGantry(t), Statements(v), Gantry)
		return
	}
	b := map[string]Broker{"gantry": Gantry, "mosquitto": Mosquitto}[strings.ToLower(*brokerFlag)]
	compare(t, Target{Addr: *targetFlag}, Statements(v), b)
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
			if *targetFlag != "" && got.Result != Deviates {
				return // it may offer more or less than the recorded one
			}
			require.Equal(t, want.Result, got.Result, "MQTT %s [MQTT-%s] %s: %s", s.Version, s.ID, s.Text, got.Detail)
		})
	}
}
