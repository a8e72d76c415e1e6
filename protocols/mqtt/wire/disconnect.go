package wire

// Disconnect is a DISCONNECT packet of a client.
type Disconnect struct {
	Code             byte
	HasSessionExpiry bool
	SessionExpiry    uint32 // seconds
}

// ParseDisconnect reads a DISCONNECT.
func ParseDisconnect(body []byte, v Version) (Disconnect, error) {
	var d Disconnect
	if v != V5 || len(body) == 0 {
		return d, ParseEmpty(body)
	}
	c := cursor{b: body}
	d.Code = c.uint8()
	if !disconnectCode(d.Code) {
		return d, errCode
	}
	if len(c.b) == 0 {
		return d, nil // section 3.14.2.2.1: length 1, no property length
	}
	r := c.properties(disconnectProps)
	var p property
	for r.next(&p) {
		if p.id == propSessionExpiry {
			d.HasSessionExpiry, d.SessionExpiry = true, p.n
		}
	}
	if r.err != nil {
		return d, r.err
	}
	return d, c.end()
}

// disconnectCode reports whether a client may send the code [MQTT-3.14.2-1].
func disconnectCode(code byte) bool {
	switch code {
	case 0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99:
		return true
	}
	return false
}

// AppendDisconnect appends a DISCONNECT of version 5; earlier versions know
// none from the server. An empty reason string is left out.
func AppendDisconnect(dst []byte, code byte, reason string) []byte {
	if reason == "" {
		return append(dst, byte(DISCONNECT)<<4, 1, code)
	}
	block := 3 + len(reason)
	n := 1 + varintSize(uint32(block)) + block
	dst = append(appendHeader(dst, byte(DISCONNECT)<<4, n), code)
	return appendString(append(appendVarint(dst, uint32(block)), propReasonString), reason)
}
