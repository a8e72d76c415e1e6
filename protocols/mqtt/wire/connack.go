package wire

// Connack is a CONNACK packet. Before version 5 only SessionPresent and Code
// are written, and Code is a return code of that version.
type Connack struct {
	SessionPresent bool
	Code           byte

	// Version 5. A zero value leaves the property out.
	ReceiveMaximum    uint16
	MaximumPacketSize uint32
	TopicAliasMaximum uint16
	AssignedClientID  string
	HasSessionExpiry  bool
	SessionExpiry     uint32 // seconds, 0xFFFFFFFF = never
	HasKeepAlive      bool
	KeepAlive         uint16 // seconds
	ReasonString      string // at most 65535 bytes
	HasAuthMethod     bool
	AuthMethod        string
	AuthData          []byte // at most 65535 bytes; nil leaves it out
}

// AppendConnack appends a CONNACK.
func AppendConnack(dst []byte, a *Connack, v Version) []byte {
	flags := byte(0)
	if a.SessionPresent {
		flags = 1
	}
	if v != V5 {
		return append(dst, byte(CONNACK)<<4, 2, flags, a.Code)
	}
	block := a.appendProps(make([]byte, 0, 64+len(a.AssignedClientID)+len(a.ReasonString)))
	n := 2 + varintSize(uint32(len(block))) + len(block)
	dst = append(appendHeader(dst, byte(CONNACK)<<4, n), flags, a.Code)
	return append(appendVarint(dst, uint32(len(block))), block...)
}

func (a *Connack) appendProps(b []byte) []byte {
	if a.HasSessionExpiry {
		b = appendUint32(append(b, propSessionExpiry), a.SessionExpiry)
	}
	if a.ReceiveMaximum != 0 {
		b = appendUint16(append(b, propReceiveMaximum), a.ReceiveMaximum)
	}
	if a.MaximumPacketSize != 0 {
		b = appendUint32(append(b, propMaximumPacketSize), a.MaximumPacketSize)
	}
	if a.AssignedClientID != "" {
		b = appendString(append(b, propAssignedClientID), a.AssignedClientID)
	}
	if a.TopicAliasMaximum != 0 {
		b = appendUint16(append(b, propTopicAliasMaximum), a.TopicAliasMaximum)
	}
	if a.ReasonString != "" {
		b = appendString(append(b, propReasonString), a.ReasonString)
	}
	if a.HasAuthMethod {
		b = appendAuthProps(b, a.AuthMethod, a.AuthData)
	}
	if a.HasKeepAlive {
		b = appendUint16(append(b, propServerKeepAlive), a.KeepAlive)
	}
	return b
}
