//go:build unix

package mqtt

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// seedFile holds what the suite sends, a protocol version and a packet in hex
// on each line, for the fuzzers of the codec.
const seedFile = "../../protocols/mqtt/wire/testdata/suite.txt"

// maxSeed is the longest packet that goes to the file, in bytes.
const maxSeed = 200

// TestSeeds makes the file with -update. Otherwise it looks whether the file has
// every packet that a client sends, in both versions.
func TestSeeds(t *testing.T) {
	if *update {
		writeSeeds(t)
	}
	text, err := os.ReadFile(seedFile)
	require.NoError(t, err)
	for _, version := range []byte{v311, v5} {
		for _, kind := range []byte{
			connectType, publishType, pubackType, pubrecType, pubrelType, pubcompType, subscribeType, unsubscribeType, pingreqType, disconnectType,
		} {
			require.Contains(t, string(text), fmt.Sprintf("\n%d %x", version, kind>>4), "no %s of version %d", kindName(kind), version)
		}
	}
}

func writeSeeds(t *testing.T) {
	target := gantryTargets(t)[TCP]
	s := &sniffer{behind: strings.TrimPrefix(target.Addr, "tcp://"), seen: map[string]string{}}
	var err error
	s.ln, err = net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s.wg.Go(s.serve)
	target.Addr = "tcp://" + s.ln.Addr().String()
	for _, v := range []Version{MQTT5, MQTT311} {
		for _, st := range Statements(v) {
			if st.Checked() {
				Run(target, &st)
			}
		}
	}
	require.NoError(t, s.ln.Close())
	s.wg.Wait()
	lines := make([]string, 0, len(s.seen))
	for _, line := range s.seen {
		lines = append(lines, line)
	}
	slices.Sort(lines)
	head := "# Made by go test ./conformance/mqtt -run TestSeeds -update\n"
	require.NoError(t, os.WriteFile(seedFile, []byte(head+strings.Join(lines, "\n")+"\n"), 0o600))
}

// sniffer passes connections on and keeps what clients send: of packets of one
// kind, version and length the first.
type sniffer struct {
	ln     net.Listener
	behind string
	wg     sync.WaitGroup
	mu     sync.Mutex // covers seen
	seen   map[string]string
}

func (s *sniffer) serve() {
	for {
		nc, err := s.ln.Accept()
		if err != nil {
			return
		}
		s.wg.Go(func() { s.pass(nc) })
	}
}

func (s *sniffer) pass(client net.Conn) {
	server, err := net.Dial("tcp", s.behind)
	if err != nil {
		_ = client.Close()
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(client, server)
		_ = client.(*net.TCPConn).CloseWrite()
	})
	var sent bytes.Buffer
	_, _ = io.Copy(server, io.TeeReader(client, &sent))
	_ = server.(*net.TCPConn).CloseWrite()
	wg.Wait()
	_, _ = client.Close(), server.Close()
	s.keep(sent.Bytes())
}

// keep cuts what one client sent into packets.
func (s *sniffer) keep(sent []byte) {
	if len(sent) < 9 || sent[0] != connectType {
		return
	}
	version := v311
	if bytes.Contains(sent[:min(len(sent), 12)], []byte("MQTT\x05")) {
		version = v5
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(sent) > 1 {
		length, n := binary.Uvarint(sent[1:]) // the same form as MQTT's
		total := 1 + n + int(length)
		if n <= 0 || n > 4 || total > len(sent) {
			return
		}
		if key := fmt.Sprint(version, sent[0], total); total <= maxSeed && s.seen[key] == "" {
			s.seen[key] = fmt.Sprintf("%d %s", version, hex.EncodeToString(sent[:total]))
		}
		sent = sent[total:]
	}
}
