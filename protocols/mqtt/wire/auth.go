package wire

// Auth is an AUTH packet of a client.
type Auth struct {
	Code       byte
	AuthMethod string
	AuthData   []byte // aliases the body; nil when absent
}

var errAuthMethod = violation("AUTH without authentication method")

// ParseAuth reads an AUTH. Remaining Length 0 stands for code 0x00 without
// properties (section 3.15.2.1).
func ParseAuth(body []byte) (Auth, error) {
	var a Auth
	if len(body) == 0 {
		return a, nil
	}
	c := cursor{b: body}
	a.Code = c.uint8()
	if a.Code != CodeSuccess && a.Code != CodeContinue && a.Code != CodeReauthenticate {
		return a, errCode
	}
	r := c.properties(authProps)
	var p property
	for r.next(&p) {
		switch p.id {
		case propAuthMethod:
			a.AuthMethod = string(p.b)
		case propAuthData:
			a.AuthData = p.b
		}
	}
	if r.err != nil {
		return a, r.err
	}
	if r.seen&props(propAuthMethod) == 0 {
		return a, errAuthMethod
	}
	return a, c.end()
}

// AppendAuth appends an AUTH. data has at most 65535 bytes; nil leaves it out.
func AppendAuth(dst []byte, code byte, method string, data []byte) []byte {
	block := authPropsSize(method, data)
	n := 1 + varintSize(uint32(block)) + block
	dst = append(appendHeader(dst, byte(AUTH)<<4, n), code)
	return appendAuthProps(appendVarint(dst, uint32(block)), method, data)
}

func authPropsSize(method string, data []byte) int {
	n := 3 + len(method)
	if data != nil {
		n += 3 + len(data)
	}
	return n
}

func appendAuthProps(dst []byte, method string, data []byte) []byte {
	dst = appendString(append(dst, propAuthMethod), method)
	if data != nil {
		dst = appendString(append(dst, propAuthData), data)
	}
	return dst
}
