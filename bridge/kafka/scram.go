package kafka

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"

	"github.com/IBM/sarama"
)

// scramGenerator returns what sarama calls for the login of each connection.
func scramGenerator(mechanism string) func() sarama.SCRAMClient {
	sum := sha256.New
	if mechanism == sarama.SASLTypeSCRAMSHA512 {
		sum = sha512.New
	}
	return func() sarama.SCRAMClient { return &scram{sum: sum} }
}

// scram is the client's side of one SCRAM login without channel binding
// (RFC 5802, RFC 7677). User names and passwords are used as they are given:
// SASLprep changes nothing of ASCII, and Kafka's own clients skip it too.
type scram struct {
	sum            func() hash.Hash
	password       string
	bare           string // first message without its header
	nonce          string
	serverVerifier []byte
	step           int
}

var errSCRAM = errors.New("scram: the server's message is malformed")

func (s *scram) Begin(user, password, authzID string) error {
	nonce := make([]byte, 24)
	rand.Read(nonce) // never fails
	s.password, s.nonce = password, base64.RawStdEncoding.EncodeToString(nonce)
	s.bare = "n=" + strings.NewReplacer("=", "=3D", ",", "=2C").Replace(user) + ",r=" + s.nonce
	s.step = 0
	return nil
}

func (s *scram) Done() bool { return s.step > 2 }

func (s *scram) Step(challenge string) (string, error) {
	s.step++
	switch s.step {
	case 1:
		return "n,," + s.bare, nil
	case 2:
		return s.prove(challenge)
	case 3:
		return "", s.verify(challenge)
	}
	return "", errors.New("scram: the login is over")
}

// prove answers the server's salt with the proof of the password.
func (s *scram) prove(challenge string) (string, error) {
	fields := scramFields(challenge)
	salt, err := base64.StdEncoding.DecodeString(fields["s"])
	rounds, errRounds := strconv.Atoi(fields["i"])
	if err != nil || errRounds != nil || rounds < 1 || rounds > 10_000_000 || len(salt) == 0 {
		return "", errSCRAM
	}
	if !strings.HasPrefix(fields["r"], s.nonce) || len(fields["r"]) == len(s.nonce) {
		return "", errors.New("scram: the server's nonce does not follow ours")
	}
	salted, err := pbkdf2.Key(s.sum, s.password, salt, rounds, s.sum().Size())
	if err != nil {
		return "", fmt.Errorf("scram: %w", err)
	}
	final := "c=biws,r=" + fields["r"]
	signed := s.bare + "," + challenge + "," + final
	clientKey := s.mac(salted, "Client Key")
	h := s.sum()
	h.Write(clientKey)
	proof := s.mac(h.Sum(nil), signed)
	subtle.XORBytes(proof, proof, clientKey)
	s.serverVerifier = s.mac(s.mac(salted, "Server Key"), signed)
	return final + ",p=" + base64.StdEncoding.EncodeToString(proof), nil
}

// verify checks that the server knows the password too.
func (s *scram) verify(final string) error {
	fields := scramFields(final)
	if e := fields["e"]; e != "" {
		return fmt.Errorf("scram: the server says %s", e)
	}
	got, err := base64.StdEncoding.DecodeString(fields["v"])
	if err != nil || !hmac.Equal(got, s.serverVerifier) {
		return errors.New("scram: the server does not know the password")
	}
	return nil
}

func (s *scram) mac(key []byte, text string) []byte {
	m := hmac.New(s.sum, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

// scramFields splits "r=…,s=…,i=…".
func scramFields(message string) map[string]string {
	fields := map[string]string{}
	for field := range strings.SplitSeq(message, ",") {
		name, value, _ := strings.Cut(field, "=")
		fields[name] = value
	}
	return fields
}
