//go:build unix

package servers

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPythonHasBothGenerationsOfPaho(t *testing.T) {
	const show = "import importlib.metadata as m, paho.mqtt.client; print(m.version('paho-mqtt'))"
	for _, requirement := range []string{Paho1, Paho2} {
		_, version, _ := strings.Cut(requirement, "==")
		require.Equal(t, version, output(t, Python(t, requirement), "-c", show))
	}
}
