package config

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Bytes is an amount of data. In a file it is a whole number with a unit (B, KiB, MiB, GiB, TiB and the decimal KB, MB, GB, TB) or a plain number of bytes.
type Bytes int64

// The binary units of [Bytes].
const (
	KiB Bytes = 1 << (10 * (iota + 1))
	MiB
	GiB
	TiB
)

type byteUnit struct {
	name string
	size Bytes
}

// byteUnits is in the order in which String tries them, then those that are only read.
var byteUnits = []byteUnit{
	{"TiB", TiB},
	{"GiB", GiB},
	{"MiB", MiB},
	{"KiB", KiB},
	{"TB", 1e12},
	{"GB", 1e9},
	{"MB", 1e6},
	{"KB", 1e3},
	{"kB", 1e3},
	{"B", 1},
}

var errBytes = errors.New("want a size such as 64MiB, 10GiB or a number of bytes")

// String returns the amount in the largest binary unit that it is a whole multiple of.
func (b Bytes) String() string {
	for _, u := range byteUnits[:4] {
		if b != 0 && b%u.size == 0 {
			return strconv.FormatInt(int64(b/u.size), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (b *Bytes) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	size := Bytes(1)
	for _, u := range byteUnits {
		if n, ok := strings.CutSuffix(s, u.name); ok {
			s, size = strings.TrimRight(n, " "), u.size
			break
		}
	}
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return fmt.Errorf("%q is not a size: %w", text, errBytes)
	}
	if n > uint64(math.MaxInt64/size) {
		return fmt.Errorf("%q is more than a file can hold", text)
	}
	*b = Bytes(n) * size
	return nil
}

// Duration is a length of time. In a file it is a number with a unit: 500ms, 10s, 5m, 24h, 7d, or several of them: 1h30m.
type Duration time.Duration

// Std returns d as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String returns the duration as the standard library writes it, without parts that are zero: 1h30m and not 1h30m0s.
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := parseDuration(string(text))
	if err != nil || v < 0 {
		return fmt.Errorf("%q is not a duration: want a number with a unit, such as 500ms, 10s, 24h or 7d", text)
	}
	*d = Duration(v)
	return nil
}

// parseDuration adds days to what time.ParseDuration knows: as the first part of a duration, 1d12h.
func parseDuration(s string) (time.Duration, error) {
	days, rest, ok := strings.Cut(s, "d")
	if !ok {
		return time.ParseDuration(s)
	}
	n, err := strconv.ParseUint(days, 10, 16)
	if err != nil {
		return 0, err
	}
	v := time.Duration(n) * 24 * time.Hour
	if rest == "" {
		return v, nil
	}
	more, err := time.ParseDuration(rest)
	if err != nil {
		return 0, err
	}
	return v + more, nil
}

// Addr is host:port. An empty host means all addresses of the machine; port 0 lets the system choose one. For MQTT listeners it may be unix: and the path of
// a socket.
type Addr string

const unixPrefix = "unix:"

// UnmarshalText implements [encoding.TextUnmarshaler].
func (a *Addr) UnmarshalText(text []byte) error {
	if path, ok := strings.CutPrefix(string(text), unixPrefix); ok {
		return a.setUnix(path)
	}
	_, port, err := net.SplitHostPort(string(text))
	if err != nil {
		return fmt.Errorf("%q is not an address: want host:port, such as :1883, 127.0.0.1:1883 or [::1]:1883", text)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q has no port from 0 to 65535", text)
	}
	*a = Addr(text)
	return nil
}

// maxUnixPath is what an address of a Unix socket can hold on every system.
const maxUnixPath = 103

func (a *Addr) setUnix(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%q is not unix: and a path that begins with /", unixPrefix+path)
	}
	if len(path) > maxUnixPath {
		return fmt.Errorf("the path of the socket is longer than %d bytes", maxUnixPath)
	}
	if strings.HasSuffix(path, "/") {
		return fmt.Errorf("%q is a folder, want the path of a socket", unixPrefix+path)
	}
	*a = Addr(unixPrefix + filepath.Clean(path))
	return nil
}

// IsUnix reports whether the address is the path of a Unix socket.
func (a Addr) IsUnix() bool { return strings.HasPrefix(string(a), unixPrefix) }

// Network is a range of addresses, or one address.
type Network struct{ netip.Prefix }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (n *Network) UnmarshalText(text []byte) error {
	if ip, err := netip.ParseAddr(string(text)); err == nil && ip.Zone() == "" {
		n.Prefix = netip.PrefixFrom(ip, ip.BitLen())
		return nil
	}
	p, err := netip.ParsePrefix(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a network: want an address or a range such as 10.0.0.0/8 or fd00::/8", text)
	}
	if p != p.Masked() {
		return fmt.Errorf("%q has bits behind its length; did you mean %s?", text, p.Masked())
	}
	n.Prefix = p
	return nil
}

// host returns the host part, empty for an Addr that is empty.
func (a Addr) host() string {
	host, _, _ := net.SplitHostPort(string(a))
	return host
}

// port returns the port, 0 for an Addr that is empty.
func (a Addr) port() int {
	_, port, _ := net.SplitHostPort(string(a))
	n, _ := strconv.Atoi(port)
	return n
}
