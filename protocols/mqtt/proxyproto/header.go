package proxyproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// header is what a proxy said about a connection.
type header struct {
	// source is the client; zero when the proxy does not know it or it has no
	// address of the internet.
	source netip.AddrPort
	// own says that the proxy speaks for itself, as it does to see whether we live.
	own bool
}

const (
	v1Prefix = "PROXY "
	// maxV1 is the longest line of version 1, with CR LF.
	maxV1 = 107
	// v2Signature begins a header of version 2. It is no beginning of MQTT, TLS,
	// HTTP or version 1.
	v2Signature = "\r\n\r\n\x00\r\nQUIT\n"
	v2Fixed     = len(v2Signature) + 4
	// maxV2 is the largest header of version 2 that is read: the addresses, and
	// room for what proxies add about TLS. The length field would allow 64 KiB.
	maxV2 = 4096
)

var (
	// errShort means that b is the beginning of a header.
	errShort     = errors.New("header is not complete")
	errMalformed = errors.New("no PROXY header")
)

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errMalformed, fmt.Sprintf(format, args...))
}

// parse reads the header at the beginning of b, of version 1 or 2, and returns
// its length. The error is errShort when more bytes are needed; what cannot
// become a header is malformed as early as that is known.
// (The PROXY protocol, versions 1 & 2, https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt)
func parse(b []byte) (h header, n int, err error) {
	switch {
	case begins(b, v2Signature):
		return parseV2(b)
	case begins(b, v1Prefix):
		return parseV1(b)
	}
	return h, 0, malformed("neither version begins so")
}

// begins reports whether b begins with s, as far as there is b.
func begins(b []byte, s string) bool {
	return strings.HasPrefix(s, string(b[:min(len(b), len(s))]))
}

// parseV1 reads one line: PROXY TCP4 192.0.2.1 198.51.100.2 56324 1883.
func parseV1(b []byte) (h header, n int, err error) {
	end := bytes.IndexByte(b[:min(len(b), maxV1)], '\n')
	if end < 0 {
		if len(b) >= maxV1 {
			return h, 0, malformed("line is longer than %d bytes", maxV1)
		}
		return h, 0, errShort
	}
	line, ok := strings.CutSuffix(string(b[:end]), "\r")
	if !ok {
		return h, 0, malformed("line does not end in CR LF")
	}
	fields := strings.Split(line[len(v1Prefix):], " ")
	if fields[0] == "UNKNOWN" { // the rest of the line says nothing
		return h, end + 1, nil
	}
	if len(fields) != 5 {
		return h, 0, malformed("line has %d fields", len(fields)+1)
	}
	h.source, err = v1Address(fields[0], fields[1], fields[3])
	if err == nil {
		_, err = v1Address(fields[0], fields[2], fields[4])
	}
	if err != nil {
		return header{}, 0, err
	}
	return h, end + 1, nil
}

func v1Address(family, addr, port string) (netip.AddrPort, error) {
	ip, err := netip.ParseAddr(addr)
	fits := family == "TCP4" && ip.Is4() || family == "TCP6" && ip.Is6() && ip.Zone() == ""
	if err != nil || !fits {
		return netip.AddrPort{}, malformed("%q is no address of %q", addr, family)
	}
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil || strconv.FormatUint(p, 10) != port {
		return netip.AddrPort{}, malformed("%q is no port", port)
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(p)), nil
}

// Commands and families of version 2.
const (
	v2Local, v2Proxy                 = 0x20, 0x21
	v2Unspec, v2TCP4, v2TCP6, v2Pipe = 0x00, 0x11, 0x21, 0x31
)

// v2Sizes is how long the addresses of a family are.
var v2Sizes = map[byte]int{v2Unspec: 0, v2TCP4: 2*4 + 2*2, v2TCP6: 2*16 + 2*2, v2Pipe: 2 * 108}

// parseV2 reads the binary form:
//
//	12        signature
//	 1        version 2, command: 0 the proxy itself, 1 for a client
//	 1        address family and transport
//	 2        length of the rest
//	 …        source and destination address, source and destination port
//	 …        type, length, value: not looked at
func parseV2(b []byte) (h header, n int, err error) {
	if len(b) < v2Fixed {
		return h, 0, errShort
	}
	command, family := b[12], b[13]
	n = v2Fixed + int(binary.BigEndian.Uint16(b[14:]))
	size, known := v2Sizes[family]
	switch {
	case command != v2Local && command != v2Proxy:
		return h, 0, malformed("version and command %#02x", command)
	case n > maxV2:
		return h, 0, malformed("header of %d bytes is longer than %d", n, maxV2)
	case command == v2Proxy && !known:
		return h, 0, malformed("family %#02x is not that of a stream", family)
	case command == v2Proxy && n-v2Fixed < size:
		return h, 0, malformed("%d bytes cannot hold addresses of family %#02x", n-v2Fixed, family)
	case len(b) < n:
		return h, 0, errShort
	case command == v2Local:
		return header{own: true}, n, nil
	}
	switch rest := b[v2Fixed:]; family {
	case v2TCP4:
		h.source = netip.AddrPortFrom(netip.AddrFrom4([4]byte(rest)), binary.BigEndian.Uint16(rest[8:]))
	case v2TCP6:
		h.source = netip.AddrPortFrom(netip.AddrFrom16([16]byte(rest)).Unmap(), binary.BigEndian.Uint16(rest[32:]))
	}
	return h, n, nil
}
