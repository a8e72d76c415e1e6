package gateway_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "gantry/"

// rule says what the packages in a folder, and in the folders below it, may import of this module.
type rule struct {
	folder string
	may    []string // packages; with /... also everything below
}

// rules go from narrow to wide: the first that fits a package counts. Whoever has internal packages may import them.
var rules = []rule{
	{"broker/auth", []string{"broker"}},
	{"broker", nil},
	{"protocols/mqtt", []string{"broker", "protocols/mqtt/..."}},
	{"protocols/quic", []string{"broker", "protocols/mqtt/..."}},
	{"protocols/coap", []string{"broker", "protocols/coap/..."}},
	{"protocols/httppush", []string{"broker"}},
	{"persist/seglog", []string{"persist/seglog/..."}},
	{"persist", []string{"broker", "persist/seglog"}},
	{"bridge/queue", []string{"persist/seglog"}},
	{"bridge/kafka", []string{"bridge", "broker"}},
	{"bridge/mqtt", []string{"bridge", "broker"}},
	{"bridge", []string{"broker", "bridge/queue"}},
	{"gateway/admin", []string{"gateway/admin/..."}},
	{"gateway/config", []string{"broker", "bridge"}},
	{"gateway", []string{"broker/...", "protocols/...", "persist/...", "bridge/...", "gateway/..."}},
	{"cmd/gantry-lab", []string{"gateway/...", "conformance/standin"}},
	{"cmd", []string{"gateway/...", "bridge", "bridge/queue"}},
	{"conformance", []string{"conformance/..."}},
}

// homes are the only folders that may import a library. Suites and the laboratory stand outside of the product and may use any client.
var homes = map[string][]string{
	"github.com/IBM/sarama":         {"bridge/kafka"},
	"github.com/redis/go-redis":     {"persist/redis"},
	"github.com/quic-go/quic-go":    {"protocols/quic"},
	"github.com/plgd-dev/go-coap":   {"protocols/coap"},
	"github.com/alecthomas/kong":    {"cmd"},
	"go.yaml.in/yaml":               {"gateway/config"},
	"github.com/eclipse/paho":       {"cmd/gantry", "bridge/mqtt"},
	"github.com/gorilla/websocket":  nil,
	"github.com/twmb/franz-go":      nil,
	"github.com/stretchr/testify":   nil,
	"pgregory.net/rapid":            nil,
	"go.uber.org/goleak":            nil,
	"github.com/google/go-cmp":      nil,
	"github.com/alicebob/miniredis": nil,
}

var outside = []string{"conformance", "cmd/gantry-lab"}

// tests may also import what is made for tests.
var testHelp = []string{"conformance/...", "persist/storetest"}

type pkg struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func TestImportsGoOneWay(t *testing.T) {
	for _, p := range packages(t) {
		from := strings.TrimPrefix(p.ImportPath, module)
		i := slices.IndexFunc(rules, func(r rule) bool { return within(from, r.folder) })
		if i < 0 {
			t.Errorf("%s is in no folder that has a rule", from)
			continue
		}
		for _, to := range ours(p.Imports) {
			if !allowed(from, to, rules[i].may) {
				t.Errorf("%s must not import %s", from, to)
			}
		}
		if !within(from, "conformance") {
			continue
		}
		// The suites run against any server, so not even their tests may know this one.
		for _, to := range ours(append(p.TestImports, p.XTestImports...)) {
			if !allowed(from, to, testHelp) {
				t.Errorf("a test of %s must not import %s", from, to)
			}
		}
	}
}

func TestOneLibraryHasOneHome(t *testing.T) {
	for _, p := range packages(t) {
		from := strings.TrimPrefix(p.ImportPath, module)
		if slices.ContainsFunc(outside, func(f string) bool { return within(from, f) }) || from == "persist/storetest" {
			continue
		}
		for _, imp := range p.Imports {
			for library, folders := range homes {
				at := func(f string) bool { return within(from, f) }
				if strings.HasPrefix(imp, library) && !slices.ContainsFunc(folders, at) {
					t.Errorf("%s must not import %s: its home is %v", from, imp, folders)
				}
			}
		}
	}
}

// The rules stand and fall with these two.
func TestWithin(t *testing.T) {
	require.True(t, within("bridge/queue", "bridge"))
	require.True(t, within("bridge", "bridge"))
	require.False(t, within("bridges", "bridge"))
	require.True(t, allowed("a", "broker/auth", []string{"broker/..."}))
	require.True(t, allowed("a", "broker", []string{"broker/..."}))
	require.False(t, allowed("a", "broker/auth", []string{"broker"}))
	require.True(t, allowed("cmd/gantry", "cmd/gantry/internal/mqtt", nil))
	require.False(t, allowed("cmd/gantry", "cmd/gantry-lab/internal/x", nil))
}

func packages(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-e", "-json=ImportPath,Imports,TestImports,XTestImports", module+"...").Output()
	require.NoError(t, err)
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			require.NotEmpty(t, all)
			return all
		}
		require.NoError(t, err)
		all = append(all, p)
	}
}

// ours returns the imports that belong to this module, without its name.
func ours(imports []string) []string {
	var in []string
	for _, imp := range imports {
		if path, ok := strings.CutPrefix(imp, module); ok {
			in = append(in, path)
		}
	}
	return in
}

// within reports whether a package is a folder or below it.
func within(pkg, folder string) bool {
	return pkg == folder || strings.HasPrefix(pkg, folder+"/")
}

func allowed(from, to string, may []string) bool {
	if owner, _, ok := strings.Cut(to, "/internal/"); ok && within(from, owner) {
		return true
	}
	return slices.ContainsFunc(may, func(m string) bool {
		folder, deep := strings.CutSuffix(m, "/...")
		return to == folder || deep && within(to, folder)
	})
}
