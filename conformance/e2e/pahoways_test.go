//go:build unix

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"gantry/conformance/servers"
)

// Each generation of the Python client, with each version, over each transport
// that it knows.
func TestPahoWays(t *testing.T) {
	t.Parallel()
	eachPaho(t, func(t *testing.T, python string) {
		d := openDoors(t, "")
		ways := map[string][]string{
			"tcp": {d.mqtt}, "tls": {d.tls, d.authority.CA, d.device.Cert, d.device.Key}, "ws": {d.ws}, "wss": {d.wss, d.authority.CA},
		}
		if strings.HasSuffix(t.Name(), servers.Paho2) {
			ways["unix"] = []string{d.unix}
		}
		if testing.Short() {
			ways = map[string][]string{"wss": ways["wss"]} // TLS and WebSocket in one
		}
		for way, args := range ways {
			for _, version := range []string{"31", "311", "5"} {
				t.Run(way+"/"+version, func(t *testing.T) {
					t.Parallel()
					args := append([]string{way, args[0], version}, args[1:]...)
					require.Equal(t, "ok\n", runScript(t, python, "round", args...))
				})
			}
		}
	})
}

// The version of the gateway is there for whoever asks, by TCP and by TLS with a
// client certificate.
func TestPahoBrokerVersion(t *testing.T) {
	t.Parallel()
	eachPaho(t, func(t *testing.T, python string) {
		d := openDoors(t, "")
		for _, args := range [][]string{{d.mqtt}, {d.tls, d.authority.CA, d.device.Cert, d.device.Key}} {
			host, port := hostPort(t, args[0])
			out := runScript(t, python, "version", append([]string{host, port}, args[1:]...)...)
			require.Regexp(t, `^connected 0\n\$SYS/broker/version 1 \S.*\n$`, out)
		}
	})
}

// $exclusive, $delayed, automatic subscriptions and rewritten topics.
func TestPahoSpecialTopics(t *testing.T) {
	t.Parallel()
	eachPaho(t, func(t *testing.T, python string) {
		g := startGateway(t, `
broker:
  auto_subscribe: [{filter: a/1, qos: 1}]
  rewrite: [{filter: "x/#", regex: "^x/y/(.+)$", topic: "z/y/$1"}]
`)
		host, port := hostPort(t, g.mqtt)
		for _, version := range []string{"311", "5"} {
			t.Run(version, func(t *testing.T) {
				require.Equal(t, "all as asked\n", runScript(t, python, "special", host, port, version))
			})
		}
	})
}

// A stream of readings reaches the subscriber and, by a bridge, Kafka.
func TestPahoReadings(t *testing.T) {
	t.Parallel()
	const count = 10
	eachPaho(t, func(t *testing.T, python string) {
		u := standIn(t)
		g := startGateway(t, fmt.Sprintf(`
bridges:
  - {name: cloud, type: kafka, brokers: ["%s"], routes: [{filter: "devices/+/messages", topic: %s, key: "${topic}", format: raw}]}
`, u.address(), topic))
		host, port := hostPort(t, g.mqtt)
		require.Equal(t, "10 readings\n", runScript(t, python, "stream", host, port, fmt.Sprint(count)))
		records := u.ConsumeAtLeast(topic, count)
		require.Len(t, records, count)
		for _, r := range records {
			var reading struct{ Temperature, Humidity int }
			require.NoError(t, json.Unmarshal(r.Value, &reading))
			require.Equal(t, 30, reading.Temperature)
			require.Equal(t, 20, reading.Humidity)
			require.Equal(t, "devices/device_001/messages", string(r.Key))
		}
	})
}

// What keeps a 3.1.1 client out reaches on_connect as a return code.
func TestPahoReturnCodes(t *testing.T) {
	t.Parallel()
	eachPaho(t, func(t *testing.T, python string) {
		open := startGateway(t, "broker: {session: {max_kept: 1}}")
		closed := startGateway(t, "auth: {anonymous: never}")
		for _, tc := range []struct {
			g    *gateway
			what string
			want string
		}{
			{open, "good", "0\n"},
			{open, "version", "1\n"},
			{open, "client-id", "2\n"},
			{closed, "good", "5\n"},
		} {
			host, port := hostPort(t, tc.g.mqtt)
			require.Equal(t, tc.want, runScript(t, python, "codes", host, port, tc.what), tc.what)
		}
		_, ack, err := dialMQTT(t.Context(), open.mqtt, hello{version: v311, id: "the one"})
		require.NoError(t, err)
		require.Zero(t, ack.ReasonCode)
		host, port := hostPort(t, open.mqtt)
		require.Equal(t, "3\n", runScript(t, python, "codes", host, port, "kept"), "one more session is too many")
	})
}
