package config

import (
	"encoding"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestBytes(t *testing.T) {
	for in, want := range map[string]Bytes{
		"0": 0, "17": 17, "17B": 17, "1KiB": 1024, "64MiB": 64 << 20, "10GiB": 10 << 30, "2TiB": 2 << 40,
		"1kB": 1000, "1KB": 1000, "3MB": 3e6, "4GB": 4e9, "1 MiB": 1 << 20,
	} {
		var b Bytes
		require.NoError(t, b.UnmarshalText([]byte(in)), in)
		require.Equal(t, want, b, in)
		var again Bytes
		require.NoError(t, again.UnmarshalText([]byte(b.String())))
		require.Equal(t, b, again)
	}
	for _, in := range []string{"", "MiB", "-1", "1.5GiB", "1M", "1mib", "0x10", "9223372036854775807KiB", "99999999999999999999", "1MiBKiB"} {
		var b Bytes
		require.Error(t, b.UnmarshalText([]byte(in)), in)
		require.Zero(t, b)
	}
	require.Equal(t, "64MiB", (64 * MiB).String())
	require.Equal(t, "1000", Bytes(1000).String())
}

func TestDuration(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"0s": 0, "500ms": 500 * time.Millisecond, "24h": 24 * time.Hour, "7d": 168 * time.Hour, "1d12h": 36 * time.Hour, "1h30m": 90 * time.Minute,
	} {
		var d Duration
		require.NoError(t, d.UnmarshalText([]byte(in)), in)
		require.Equal(t, want, d.Std(), in)
		var again Duration
		require.NoError(t, again.UnmarshalText([]byte(d.String())))
		require.Equal(t, d, again)
	}
	for _, in := range []string{"", "10", "-5s", "d", "1dd", "5 s", "1d-2h1d", "99999999h", "65535d2560000h"} {
		var d Duration
		require.Error(t, d.UnmarshalText([]byte(in)), in)
	}
}

func TestDurationString(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"24h": 24 * time.Hour, "5m": 5 * time.Minute, "1h30m": 90 * time.Minute, "10s": 10 * time.Second, "1h0m10s": time.Hour + 10*time.Second, "0s": 0,
	} {
		require.Equal(t, want, Duration(d).String())
	}
}

func TestAddr(t *testing.T) {
	for _, in := range []string{":1883", "127.0.0.1:0", "[::1]:5683", "gw.example:65535"} {
		var a Addr
		require.NoError(t, a.UnmarshalText([]byte(in)), in)
		require.Equal(t, Addr(in), a)
	}
	for _, in := range []string{"", "1883", "::1:5683", "host:", "host:65536", "host:http", "[::1]"} {
		var a Addr
		require.Error(t, a.UnmarshalText([]byte(in)), in)
	}
}

func TestPortConflicts(t *testing.T) {
	for _, c := range []struct {
		a, b     Addr
		conflict bool
	}{
		{":1883", ":1883", true},
		{":1883", "127.0.0.1:1883", true},
		{"[::]:1883", "127.0.0.1:1883", true},
		{"0.0.0.0:1883", "10.0.0.1:1883", true},
		{"10.0.0.1:1883", "10.0.0.2:1883", false},
		{":1883", ":1884", false},
		{"127.0.0.1:0", "127.0.0.1:0", false},
	} {
		require.Equal(t, c.conflict, socket{"a", c.a, "tcp"}.conflicts(socket{"b", c.b, "tcp"}), "%s %s", c.a, c.b)
		require.False(t, socket{"a", c.a, "tcp"}.conflicts(socket{"b", c.b, "udp"}))
	}
}

func TestDidYouMean(t *testing.T) {
	names := []string{"durability", "session", "bind"}
	require.Equal(t, "; did you mean durability?", didYouMean("durabilty", names))
	require.Equal(t, "; did you mean bind?", didYouMean("bnid", names))
	require.Equal(t, "; did you mean session?", didYouMean("Sessions", names))
	require.Empty(t, didYouMean("colour", names))
	require.Empty(t, didYouMean("x", []string{"y"}))
}

// A setting with a few values whose type has no entry would take any text.
func TestEveryEnumHasItsValues(t *testing.T) {
	var walk func(v reflect.Type)
	walk = func(v reflect.Type) {
		switch v.Kind() {
		case reflect.Struct:
			for f := range v.Fields() {
				walk(f.Type)
			}
		case reflect.Slice, reflect.Pointer, reflect.Map:
			walk(v.Elem())
		case reflect.String:
			if v == reflect.TypeFor[string]() || reflect.PointerTo(v).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
				return
			}
			require.Contains(t, choices, v)
		}
	}
	walk(reflect.TypeFor[Config]())
}
