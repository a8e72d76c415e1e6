package servers

import (
	"path/filepath"
	"testing"
)

// The two generations of the Python client that are in wide use; the first is
// the one that older examples are written for.
const (
	Paho1 = "paho-mqtt==1.6.1"
	Paho2 = "paho-mqtt==2.1.0"
)

// Python returns a Python interpreter that has the named package, such as Paho1.
// The first call for a package makes a virtual environment in the cache folder.
func Python(t testing.TB, requirement string) string {
	t.Helper()
	python := Tool(t, "python3")
	venv, err := cached(requirement, func(dir string) error {
		if err := runIn(dir, python, "-m", "venv", "."); err != nil {
			return err
		}
		return runIn(dir, filepath.Join(dir, "bin", "python"),
			"-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement)
	})
	if err != nil {
		missing(t, requirement+" for Python", "pip has to work: "+err.Error())
	}
	return filepath.Join(venv, "bin", "python")
}
