package servers

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// requireRealEnv turns a missing program from a skip into a failure.
const requireRealEnv = "GANTRY_REQUIRE_REAL"

// debianPackage names the package that holds a program.
var debianPackage = map[string]string{
	"chromium":            "chromium",
	"coap-client":         "libcoap3-bin",
	"coap-client-gnutls":  "libcoap3-bin",
	"coap-client-notls":   "libcoap3-bin",
	"coap-client-openssl": "libcoap3-bin",
	"coap-server":         "libcoap3-bin",
	"coap-server-notls":   "libcoap3-bin",
	"curl":                "curl",
	"java":                "openjdk-17-jre-headless",
	"kcat":                "kcat",
	"mosquitto":           "mosquitto",
	"mosquitto_passwd":    "mosquitto",
	"mosquitto_pub":       "mosquitto-clients",
	"mosquitto_rr":        "mosquitto-clients",
	"mosquitto_sub":       "mosquitto-clients",
	"mvn":                 "maven",
	"node":                "nodejs",
	"npm":                 "npm",
	"python3":             "python3-venv",
	"redis-cli":           "redis-tools",
	"redis-server":        "redis-server",
	"stdbuf":              "coreutils",
}

// Tool returns the path of the first of the named programs that is installed.
// Several names are alternatives for one program, such as "coap-client-notls"
// and "coap-client". When none is installed the test is skipped, or failed with
// GANTRY_REQUIRE_REAL=1.
func Tool(t testing.TB, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, ok := lookPath(name); ok {
			return path
		}
	}
	missing(t, strings.Join(names, " or "), installHint(names))
	return ""
}

// lookPath also looks where Debian keeps servers, which is not on the search
// path of an ordinary user.
func lookPath(name string) (string, bool) {
	if path, err := exec.LookPath(name); err == nil {
		return path, true
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/usr/local/bin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, true
		}
	}
	return "", false
}

func installHint(names []string) string {
	for _, name := range names {
		if pkg, ok := debianPackage[name]; ok {
			return "apt-get install -y " + pkg
		}
	}
	return "put it on PATH"
}

// missing ends the test because what it needs is not there. It does not return.
func missing(t testing.TB, what, how string) {
	t.Helper()
	if os.Getenv(requireRealEnv) == "1" {
		t.Fatalf("%s is not installed, and %s=1: %s", what, requireRealEnv, how)
	}
	t.Skipf("%s is not installed: %s", what, how)
}
