package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// beGantry makes the test binary the program itself.
const beGantry = "TEST_BE_GANTRY"

func TestMain(m *testing.M) {
	if os.Getenv(beGantry) != "" {
		main()
	}
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "GANTRY_") {
			_ = os.Unsetenv(name) // of whoever runs the tests
		}
	}
	os.Exit(m.Run())
}

// result is how a command ended.
type result struct {
	code     int
	out, err string
}

func gantry(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	code := execute(t.Context(), args, streams{strings.NewReader(stdin), &out, &errs})
	return result{code, out.String(), errs.String()}
}

// program is the command as a process of its own.
func program(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), beGantry+"=1")
	return cmd
}

func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestHelp(t *testing.T) {
	out, err := program(t.Context(), "--help").CombinedOutput()
	require.NoError(t, err)
	for _, command := range []string{"run", "check", "pub", "sub", "status", "bridges", "bridge", "queue", "version"} {
		require.Contains(t, string(out), "\n  "+command)
	}
	out, err = program(t.Context(), "pub", "--help").CombinedOutput()
	require.NoError(t, err)
	require.Contains(t, string(out), "-h, --host")
}

func TestVersion(t *testing.T) {
	r := gantry(t, "", "version")
	require.Zero(t, r.code)
	require.Regexp(t, `^gantry \S+.*, go1\.\d+.* \w+/\w+\n$`, r.out)
}

// A mistake on the command line is one line on the error stream and exit code 1.
func TestUsageErrors(t *testing.T) {
	for _, args := range [][]string{
		{},
		{"frobnicate"},
		{"run", "--colour"},
		{"check"},
		{"pub", "-t", "a", "-q", "3", "-m", "x"},
		{"pub", "-m", "x"},
		{"sub"},
		{"pub", "-t", "a", "-m", "x", "-l"},
		{"sub", "-t", "a", "-W", "soon"},
		{"pub", "-t", "a", "-m", "x", "-p", "70000"},
		{"queue"},
		{"pub", "-t", "a", "-m", "x", "-V", "4"},
	} {
		r := gantry(t, "", args...)
		require.Equal(t, 1, r.code, "%q", args)
		require.Empty(t, r.out, "%q", args)
		require.Equal(t, 1, strings.Count(r.err, "\n"), "%q: %s", args, r.err)
	}
}

func TestCheck(t *testing.T) {
	good := file(t, "gantry.yaml", "node: edge\n")
	require.Equal(t, result{0, good + ": ok\n", ""}, gantry(t, "", "check", "-c", good))

	bad := file(t, "gantry.yaml", "node: edge\nbroker:\n  durabilty: sync\nlog: {level: loud}\n")
	require.Equal(t, result{1, "", bad + ":3: broker.durabilty: unknown key; did you mean durability?\n" +
		bad + `:4: log.level: "loud" is not debug, info, warn or error` + "\n"}, gantry(t, "", "check", "-c", bad))

	r := gantry(t, "", "check", "-c", good+".none")
	require.Equal(t, 1, r.code)
	require.Contains(t, r.err, "gantry: read configuration: open ")

	tls := file(t, "gantry.yaml", "nodes: edge\nlisteners:\n  mqtt:\n    - name: tls\n      bind: ':8883'\n      tls:\n        cert: none.pem\n        key: none.key\n")
	r = gantry(t, "", "check", "-c", tls)
	require.Equal(t, 1, r.code)
	require.Contains(t, r.err, tls+":1: nodes: unknown key")
	require.Contains(t, r.err, tls+":7: listeners.mqtt[0].tls.cert: read certificate: open ")

	t.Setenv("GANTRY_NODE", "a b")
	r = gantry(t, "", "check", "-c", good)
	require.Equal(t, 1, r.code)
	require.Contains(t, r.err, "environment: GANTRY_NODE: ")
}
