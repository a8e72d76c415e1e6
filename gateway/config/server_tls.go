package config

// ServerTLS says how a listener secures its connections, TLS 1.2 or newer. Paths in a file are relative to its folder.
type ServerTLS struct {
	Cert       string     `yaml:"cert"`        // PEM file with the certificate, and those between it and its authority
	Key        string     `yaml:"key"`         // PEM file with its private key
	ClientCA   string     `yaml:"client_ca"`   // PEM file with the authorities of client certificates
	ClientAuth ClientAuth `yaml:"client_auth"` // whether clients must have a certificate
	Identity   Identity   `yaml:"identity"`    // what of it is the user name
}

func (t *ServerTLS) setDefaults() { *t = ServerTLS{ClientAuth: ClientAuthNone, Identity: IdentityNone} }

func (t *ServerTLS) validate(add check, path string) {
	required(add, path+".cert", t.Cert)
	required(add, path+".key", t.Key)
	asks := t.ClientAuth == ClientAuthRequest || t.ClientAuth == ClientAuthRequire
	switch {
	case asks && t.ClientCA == "":
		add(path+".client_ca", "is missing: it says which client certificates are good")
	case !asks && t.ClientCA != "":
		add(path+".client_ca", "has no effect without client_auth: request or require")
	}
	if !asks && t.Identity == IdentityCN {
		add(path+".identity", "has no effect without client_auth: request or require")
	}
}
