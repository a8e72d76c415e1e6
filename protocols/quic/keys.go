package quic

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/quic-go/quic-go"
)

// secretSize is the length of the file in bytes. The secret is random; what
// each purpose needs is derived from it.
const secretSize = 32

// useKeys gives the transport the keys that outlive a restart.
func useKeys(tr *quic.Transport, path string, log *slog.Logger) error {
	if path == "" {
		return nil
	}
	secret, err := loadSecret(path, log)
	if err != nil {
		return fmt.Errorf("QUIC keys: %w", err)
	}
	reset, err := hkdf.Key(sha256.New, secret, nil, "stateless reset", len(quic.StatelessResetKey{}))
	if err != nil {
		return fmt.Errorf("derive key of stateless resets: %w", err)
	}
	token, err := hkdf.Key(sha256.New, secret, nil, "address token", len(quic.TokenGeneratorKey{}))
	if err != nil {
		return fmt.Errorf("derive key of tokens: %w", err)
	}
	resetKey, tokenKey := quic.StatelessResetKey(reset), quic.TokenGeneratorKey(token)
	tr.StatelessResetKey, tr.TokenGeneratorKey = &resetKey, &tokenKey
	return nil
}

// loadSecret reads the secret, or makes one. A file of another length, such as
// one that a power cut has left, is replaced: clients of before wait for their
// timeout then.
func loadSecret(path string, log *slog.Logger) ([]byte, error) {
	secret, err := os.ReadFile(path)
	switch {
	case err == nil && len(secret) == secretSize:
		return secret, nil
	case err == nil:
		log.Warn("key file of QUIC has not the length of a key, it is replaced", "file", path)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	secret = make([]byte, secretSize)
	if _, err := rand.Read(secret); err != nil {
		return nil, err
	}
	return secret, replaceFile(path, secret)
}

// replaceFile writes a file that only its owner may read, as a whole or not.
func replaceFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}
