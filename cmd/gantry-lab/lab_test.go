package main

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"gantry/gateway/admin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestVerdictKnowsWhatIsLost(t *testing.T) {
	l := newLedger()
	d := l.device("mqtt", "d")
	for n := range 5 {
		d.sent(n)
	}
	for _, n := range []int{0, 1, 2, 4} {
		d.acked(n)
	}
	for _, n := range []int{0, 2, 1, 1, 3} {
		l.arrived("d", n)
	}
	l.arrived("stranger", 0)
	l.arrived("d", 99)
	v := l.verdict()
	require.Equal(t, 4, v.acknowledged)
	require.Equal(t, 4, v.delivered, "one of them without acknowledgement")
	require.Equal(t, 1, v.duplicates)
	require.Equal(t, 2, v.disordered)
	require.Equal(t, 1, v.lost)
	require.Equal(t, "acknowledged 4  delivered 4  duplicates 1  lost 1  out of order 2", v.String())
	require.Equal(t, "acknowledged 0  delivered 0  duplicates 0  lost 0", newLedger().verdict().String())
}

func TestFlagsAreChecked(t *testing.T) {
	good := flags{For: time.Second, Devices: 1, Rate: 1}
	require.NoError(t, good.Validate())
	for _, change := range []func(*flags){
		func(f *flags) { f.For = 0 },
		func(f *flags) { f.Cut = f.For },
		func(f *flags) { f.Devices = 0 },
		func(f *flags) { f.Rate = 0 },
		func(f *flags) { f.Rate = 300 },
	} {
		f := good
		change(&f)
		require.Error(t, f.Validate())
	}
}

func TestScreenShowsTheTable(t *testing.T) {
	var out bytes.Buffer
	s := newScreen(&out)
	require.False(t, s.terminal)
	s.uplink(false)
	s.draw(rows{
		protocols: []string{"mqtt"}, totals: []totals{{devices: 3, sent: 20, acknowledged: 19, delivered: 7}},
		bridge: &admin.Bridge{Name: "uplink", State: "retrying", QueuedRecords: 12, QueuedBytes: 3400, OldestAgeSeconds: 1.25},
	})
	for _, text := range []string{"uplink CUT", "mqtt        3    20            19          7", "retrying, queued 12 (3400 bytes)", "oldest 1.2s"} {
		require.Contains(t, out.String(), text)
	}
}

// The laboratory itself, short: nothing that was acknowledged is lost, and the cut is survived.
func TestLaboratory(t *testing.T) {
	var out bytes.Buffer
	f := flags{For: 3 * time.Second, Cut: time.Second, Devices: 2, Rate: 20, Settle: 30 * time.Second}
	v, err := run(context.Background(), &f, &out)
	require.NoError(t, err)
	require.Greater(t, v.acknowledged, 100)
	require.Zero(t, v.lost)
	require.Zero(t, v.duplicates)
	require.Zero(t, v.disordered)
	require.Contains(t, out.String(), "bridge uplink")
}
