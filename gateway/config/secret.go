package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

const fileReference = "file:"

// Secret is a password: the text itself, or file:PATH where it is the content of a file without the line end. A path in a configuration file is relative to
// its folder. A Secret prints as *** so that it cannot reach a log or an answer by accident.
type Secret string

// String hides the secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "***"
}

// GoString hides the secret from %#v.
func (s Secret) GoString() string { return s.String() }

// MarshalText hides the secret from JSON, YAML and log/slog.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (s *Secret) UnmarshalText(text []byte) error {
	if string(text) == fileReference {
		return fmt.Errorf("%q names no file", text)
	}
	*s = Secret(text)
	return nil
}

// Read returns the secret in the clear. It reads the file each time, so that a secret can be replaced.
func (s Secret) Read() (string, error) {
	path, ok := strings.CutPrefix(string(s), fileReference)
	if !ok {
		return string(s), nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

// resolve makes the paths of certificates and secrets relative to the folder of the configuration file.
func (c *Config) resolve(dir string) {
	for i := range c.Listeners.MQTT {
		if t := c.Listeners.MQTT[i].TLS; t != nil {
			for _, path := range []*string{&t.Cert, &t.Key, &t.ClientCA} {
				*path = below(dir, *path)
			}
		}
	}
	for i := range c.Bridges {
		b := &c.Bridges[i]
		if b.TLS != nil {
			for _, path := range []*string{&b.TLS.CA, &b.TLS.Cert, &b.TLS.Key} {
				*path = below(dir, *path)
			}
		}
		if b.SASL != nil {
			if path, ok := strings.CutPrefix(string(b.SASL.Password), fileReference); ok {
				b.SASL.Password = Secret(fileReference + below(dir, path))
			}
		}
	}
}

func below(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}
