package config

import (
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "rewrite the expected messages in testdata")

func TestDefaultIsValidAndOnLoopback(t *testing.T) {
	c, err := Load("", nil)
	require.NoError(t, err)
	require.Equal(t, Default(), c)
	require.NoError(t, c.Validate())
	for _, a := range []Addr{c.Listeners.MQTT[0].Bind, c.Listeners.CoAP[0].Bind, c.Listeners.HTTP[0].Bind, c.Admin.Bind} {
		require.Equal(t, "127.0.0.1", a.host())
	}
	require.Equal(t, filepath.Join("gantry-data", "admin.token"), c.TokenPath())
	require.NotEmpty(t, c.NodeName())
}

// Each bad file is wrong in one way; the messages it must give lie beside it.
func TestBadFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.bad.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".bad.yaml"), func(t *testing.T) {
			_, err := Load(file, nil)
			require.Error(t, err)
			golden := strings.TrimSuffix(file, ".yaml") + ".txt"
			if *update {
				require.NoError(t, os.WriteFile(golden, []byte(err.Error()+"\n"), 0o644))
			}
			want, readErr := os.ReadFile(golden)
			require.NoError(t, readErr)
			require.Equal(t, string(want), err.Error()+"\n")
			require.ErrorAs(t, err, new(Problems))
		})
	}
}

func TestLoadMissingFile(t *testing.T) {
	_, err := Load("testdata/none.yaml", nil)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NotErrorAs(t, err, new(Problems))
}

func TestEmptyFilesAreDefaults(t *testing.T) {
	for _, text := range []string{"", "\n", "# nothing\n", "---\n", "{}\n", "~\n"} {
		c, err := parse("f", []byte(text), nil)
		require.NoError(t, err, "%q", text)
		require.Equal(t, Default(), c, "%q", text)
	}
}

func TestListenersReplaceTheDefaults(t *testing.T) {
	c, err := parse("f", []byte("listeners: {mqtt: [{name: a, bind: ':1'}]}"), nil)
	require.NoError(t, err)
	want := defaultMQTT()
	want.Name, want.Bind = "a", ":1"
	require.Equal(t, Listeners{MQTT: []MQTT{want}}, c.Listeners)

	c, err = parse("f", []byte("log: {level: debug}"), nil)
	require.NoError(t, err)
	require.Equal(t, Default().Listeners, c.Listeners)
	require.Equal(t, LogLevel("debug"), c.Log.Level)
	require.Equal(t, LogFormat("text"), c.Log.Format)
}

func TestAnchorsAreFollowed(t *testing.T) {
	c, err := parse("f", []byte("log: &l {level: debug, format: json}\nnode: &n edge\nbridges: []\ndata_dir: *n\n"), nil)
	require.NoError(t, err)
	require.Equal(t, "edge", c.DataDir)
}

func TestEnvironment(t *testing.T) {
	c, err := parse("f", []byte("broker: {durability: interval}"), []string{
		"PATH=/bin", "GANTRY_REQUIRE_REAL=1", "GANTRY_BROKER_DURABILITY=memory", "GANTRY_BROKER_SESSION_QUEUE_BYTES=2GiB", "GANTRY_STORE_TYPE=embedded",
		"GANTRY_BROKER_SESSION_INFLIGHT=7", "GANTRY_ADMIN_BIND=127.0.0.1:0", "GANTRY_DATA_DIR=/d=1", "GANTRY_BROKER_SYNC_INTERVAL=1s",
	})
	require.NoError(t, err)
	require.Equal(t, DurabilityMemory, c.Broker.Durability)
	require.Equal(t, 2*GiB, c.Broker.Session.QueueBytes)
	require.Equal(t, 7, c.Broker.Session.Inflight)
	require.Equal(t, Addr("127.0.0.1:0"), c.Admin.Bind)
	require.Equal(t, "/d=1", c.DataDir)
	require.Equal(t, time.Second, c.Broker.SyncInterval.Std())
}

func TestBadEnvironment(t *testing.T) {
	for entry, want := range map[string]string{
		"GANTRY_STORE_TYPE=redis":                "environment: GANTRY_STORE_TYPE: redis: not available in this version",
		"GANTRY_STORE_REDIS_ADDRS=x":             "environment: GANTRY_STORE_REDIS_ADDRS: not available in this version",
		"GANTRY_STORE_TIPE=x":                    "environment: GANTRY_STORE_TIPE: no setting has this variable; did you mean GANTRY_STORE_TYPE?",
		"GANTRY_=x":                              "environment: GANTRY_: no setting has this variable",
		"GANTRY_LISTENERS_MQTT=x":                "environment: GANTRY_LISTENERS_MQTT: no setting has this variable",
		"GANTRY_BROKER_SESSION_INFLIGHT=many":    `environment: GANTRY_BROKER_SESSION_INFLIGHT: "many" is not a whole number`,
		"GANTRY_BROKER_SESSION_INFLIGHT=0":       "environment: GANTRY_BROKER_SESSION_INFLIGHT: 0 is outside 1 to 65535",
		"GANTRY_BROKER_MAX_PACKET_SIZE=1":        "environment: GANTRY_BROKER_MAX_PACKET_SIZE: 1 is outside 1KiB to 64MiB",
		"GANTRY_BROKER_SYNC_INTERVAL=10":         `environment: GANTRY_BROKER_SYNC_INTERVAL: "10" is not a duration: want a number with a unit, such as 500ms, 10s, 24h or 7d`,
		"GANTRY_DATA_DIR=":                       "environment: GANTRY_DATA_DIR: is empty",
		"GANTRY_BROKER_SESSION_QUEUE_BYTES=1KiB": "environment: GANTRY_BROKER_SESSION_QUEUE_BYTES: 1KiB cannot hold one message of broker.max_packet_size (1MiB)",
	} {
		_, err := parse("f", nil, []string{entry})
		require.Error(t, err, entry)
		require.Equal(t, want, strings.Split(err.Error(), "\n")[0], entry)
	}
}

func TestProblemsOfFileAndEnvironmentComeTogether(t *testing.T) {
	_, err := parse("f", []byte("node: 'a b'\n\nlog: {level: loud}\n"), []string{"GANTRY_X=1"})
	require.EqualError(t, err, `f:1: node: "a b" is not a name: `+nameRule+`
f:3: log.level: "loud" is not debug, info, warn or error
environment: GANTRY_X: no setting has this variable`)
}

// No two settings may share a variable, or one of them could not be set.
func TestVariablesAreDistinct(t *testing.T) {
	var names []string
	for _, v := range variables(Default()) {
		require.NotContains(t, names, v.name)
		names = append(names, v.name)
	}
	require.Contains(t, names, "GANTRY_BROKER_SESSION_WHEN_FULL")
}

func TestValidateWithoutAFile(t *testing.T) {
	c := Default()
	c.Listeners.HTTP[0].Bind = c.Admin.Bind
	c.Bridges = []Bridge{{Name: "b", Type: BridgeKafka}}
	err := c.Validate()
	var problems Problems
	require.ErrorAs(t, err, &problems)
	require.Contains(t, err.Error(), "admin.bind: 127.0.0.1:18083 is already taken by listeners.http[0].bind (127.0.0.1:18083)")
	require.True(t, slices.ContainsFunc(problems, func(p Problem) bool { return p.Key == "bridges[0].brokers" }))
}

// FuzzLoad: no text makes the loader panic, and what it accepts passes Validate.
func FuzzLoad(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	require.NoError(f, err)
	samples, err := filepath.Glob("../../configs/*.yaml")
	require.NoError(f, err)
	for _, file := range append(files, samples...) {
		text, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add(text)
	}
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("{}\n---\n{}"))
	f.Add([]byte("{? [a] : b}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parse("f", text, nil)
		if err == nil {
			require.NoError(t, c.Validate())
			return
		}
		require.ErrorAs(t, err, new(Problems))
		require.NotEmpty(t, err.Error())
	})
}
