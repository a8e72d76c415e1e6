package admin

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// minTokenBytes keeps a token that was typed by hand from being guessed.
const minTokenBytes = 16

func validToken(token string) error {
	if len(token) < minTokenBytes {
		return fmt.Errorf("token needs at least %d characters", minTokenBytes)
	}
	for _, c := range []byte(token) {
		if c <= ' ' || c > '~' {
			return errors.New("token must be one line of printable ASCII without spaces")
		}
	}
	return nil
}

// loadToken reads the token file. Where it is missing it makes one with a new
// random token, mode 0600, if create says so.
func loadToken(path string, create bool, log *slog.Logger) (string, error) {
	if path == "" {
		return "", errors.New("admin interface needs a token file")
	}
	token, err := ReadToken(path)
	if errors.Is(err, fs.ErrNotExist) && create {
		return createToken(path, log)
	}
	if err != nil {
		return "", err
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
		log.Warn("admin token file is readable by others", "file", path, "mode", info.Mode().Perm().String())
	}
	return token, nil
}

// createToken writes a complete file under another name first, so that a
// reader never sees half a token.
func createToken(path string, log *slog.Logger) (string, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("create admin token: %w", err)
	}
	token := rand.Text() + rand.Text()
	f, err := os.CreateTemp(filepath.Dir(path), ".token-*") // mode 0600
	if err != nil {
		return "", fmt.Errorf("create admin token: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(token + "\n")
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("create admin token: %w", err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return "", fmt.Errorf("create admin token: %w", err)
	}
	log.Info("admin token created", "file", path)
	return token, nil
}

// bearer checks the Authorization header in constant time: digests are compared,
// so that not even the length of the token shows.
type bearer struct{ digest [sha256.Size]byte }

func newBearer(token string) bearer { return bearer{sha256.Sum256([]byte(token))} }

func (b bearer) matches(r *http.Request) bool {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	got := sha256.Sum256([]byte(strings.TrimSpace(token)))
	return subtle.ConstantTimeCompare(got[:], b.digest[:]) == 1
}
