package servers

import (
	"path/filepath"
	"testing"
)

// MQTTJS is the client that pages and Node programs use.
const MQTTJS = "mqtt@5.16.0"

// Node returns the Node interpreter, and the folder to set as NODE_PATH so that
// it finds the named package, such as MQTTJS. The first call for a package
// installs it in the cache folder.
func Node(t testing.TB, requirement string) (program, nodePath string) {
	t.Helper()
	program = Tool(t, "node")
	npm := Tool(t, "npm")
	dir, err := cached(requirement, func(dir string) error {
		return runIn(dir, npm, "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", ".", requirement)
	})
	if err != nil {
		missing(t, requirement+" for Node", "npm has to work: "+err.Error())
	}
	return program, filepath.Join(dir, "node_modules")
}
