//go:build unix

package servers

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Browser opens a page in Chromium, without a window and with a profile of its
// own, until the test ends. It returns when loaded returns nil: by what the page
// has asked its server for, the test knows. The browser takes any certificate
// and connects to nothing by itself.
func Browser(t testing.TB, url string, loaded func(ctx context.Context) error) *Process {
	t.Helper()
	program, dir := Tool(t, "chromium", "chromium-browser"), profileDir(t)
	p := Start(t, Program{
		Name: "chromium", Dir: dir, Answers: loaded,
		Argv: []string{
			program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server",
			"--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
			"--ignore-certificate-errors", "--user-data-dir=" + filepath.Join(dir, "profile"), url,
		},
	})
	t.Cleanup(p.Stop) // in order: its helpers end with it
	return p
}

// profileDir is a temporary folder that may be written to for a moment longer
// than the browser runs: its helpers end after it.
func profileDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gantry-browser-") //nolint:usetesting // that of the test must be removable at once
	if err != nil {
		t.Fatalf("folder for a browser: %v", err)
	}
	t.Cleanup(func() {
		err := os.RemoveAll(dir)
		for deadline := time.Now().Add(stopWithin); err != nil && time.Now().Before(deadline); err = os.RemoveAll(dir) {
			time.Sleep(pollEvery)
		}
		if err != nil {
			t.Errorf("remove the folder of a browser: %v", err)
		}
	})
	return dir
}
