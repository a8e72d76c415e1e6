package httppush

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"net/netip"
	"unicode/utf8"

	"gantry/broker"
)

// identity is who a request says it comes from.
type identity struct {
	clientID    string
	credentials broker.Credentials
	remote      netip.AddrPort
	version     string // of HTTP
}

// key is what requests must agree in to share a session: whoever shares it
// would pass, or fail, the same authentication. The password is kept only as a
// keyed digest.
type key struct {
	clientID, username       string
	hasUsername, hasPassword bool
	password                 [sha256.Size]byte
	addr                     netip.Addr
}

// digestKey makes password digests useless outside this process.
type digestKey [sha256.Size]byte

func newDigestKey() (k digestKey) {
	_, _ = rand.Read(k[:]) // never fails
	return k
}

func (k *digestKey) of(id *identity) key {
	c := &id.credentials
	out := key{clientID: id.clientID, username: c.Username, hasUsername: c.HasUsername, hasPassword: c.HasPassword, addr: id.remote.Addr()}
	if c.HasPassword {
		mac := hmac.New(sha256.New, k[:])
		mac.Write(c.Password)
		mac.Sum(out.password[:0])
	}
	return out
}

// identify reads who sends a request, and gives it the names that the listener
// has for it.
func (s *Server) identify(r *http.Request, bodyClientID string) (*identity, error) {
	id, err := identify(r, bodyClientID)
	if err != nil {
		return nil, err
	}
	who := broker.ConnectRequest{ClientID: id.clientID, Credentials: id.credentials, Listener: s.cfg.Name}
	if err := s.cfg.Naming.Identify(&who); err != nil {
		return nil, refusal(err, &id.credentials)
	}
	id.clientID, id.credentials = who.ClientID, who.Credentials
	return id, nil
}

// identify reads who sends a request. bodyClientID is the one of the JSON
// form, "" when it has none.
func identify(r *http.Request, bodyClientID string) (*identity, error) {
	remote, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return nil, refuse(broker.Unspecified, "the peer has no address")
	}
	id := &identity{
		remote:  netip.AddrPortFrom(remote.Addr().Unmap().WithZone(""), remote.Port()),
		version: r.Proto[min(len("HTTP/"), len(r.Proto)):],
	}
	if id.credentials, err = credentials(r); err != nil {
		return nil, err
	}
	if id.clientID, err = clientID(r, bodyClientID); err != nil {
		return nil, err
	}
	if id.clientID == "" {
		id.clientID = id.defaultClientID()
	}
	return id, nil
}

// defaultClientID has the address even where there is a user name: many
// devices share one, and would take the session from each other.
func (id *identity) defaultClientID() string {
	if id.credentials.HasUsername {
		return "http-" + id.credentials.Username + "@" + id.remote.Addr().String()
	}
	return "http-" + id.remote.Addr().String()
}

func clientID(r *http.Request, body string) (string, error) {
	values := r.Header.Values("X-Client-Id")
	if len(values) == 0 {
		return body, nil
	}
	if len(values) > 1 || values[0] == "" {
		return "", refuse(broker.InvalidClientID, "X-Client-Id must have one value")
	}
	if body != "" && body != values[0] {
		return "", refuse(broker.InvalidClientID, "X-Client-Id and clientid differ")
	}
	return values[0], nil
}

// credentials reads Basic credentials (RFC 7617); none are an anonymous client.
func credentials(r *http.Request) (c broker.Credentials, err error) {
	values := r.Header.Values("Authorization")
	if len(values) == 0 {
		return c, nil
	}
	user, password, ok := r.BasicAuth()
	if !ok || len(values) > 1 || !utf8.ValidString(user) {
		return c, refuse(broker.BadAuthMethod, "Authorization must be one well-formed Basic header")
	}
	return broker.Credentials{Username: user, HasUsername: true, Password: []byte(password), HasPassword: true}, nil
}
