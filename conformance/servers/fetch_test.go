//go:build unix

package servers

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The tests named TestFetch fill the cache folder; .ci/run runs them before
// everything else, so that no other test waits for a download.

func TestFetchKafka(t *testing.T) {
	libs := filepath.Dir(kafkaClasspath(t))
	require.FileExists(t, filepath.Join(libs, "kafka_2.13-"+KafkaVersion+".jar"))
}

func TestFetchPaho(t *testing.T) {
	const show = "import importlib.metadata as m, paho.mqtt.client; print(m.version('paho-mqtt'))"
	for _, requirement := range []string{Paho1, Paho2} {
		_, version, _ := strings.Cut(requirement, "==")
		require.Equal(t, version, output(t, Python(t, requirement), "-c", show))
	}
}

func TestFetchMQTTJS(t *testing.T) {
	node, modules := Node(t, MQTTJS)
	_, version, _ := strings.Cut(MQTTJS, "@")
	cmd := exec.Command(node, "-p", "require('mqtt/package.json').version")
	cmd.Env = append(cmd.Environ(), "NODE_PATH="+modules)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, version, strings.TrimSpace(string(out)))
	require.FileExists(t, filepath.Join(modules, "mqtt", "dist", "mqtt.min.js"), "what pages load")
}
