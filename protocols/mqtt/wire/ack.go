package wire

// Reason codes that the codec itself must know (section 2.4).
const (
	CodeSuccess        = 0x00
	CodeNoSubscribers  = 0x10
	CodeContinue       = 0x18 // Continue authentication
	CodeReauthenticate = 0x19
	CodePacketNotFound = 0x92
)

// Ack is a PUBACK, PUBREC, PUBREL or PUBCOMP.
type Ack struct {
	PacketID uint16
	Code     byte // CodeSuccess in versions before 5
}

// Failed reports whether the code ends the exchange with an error.
func (a Ack) Failed() bool { return a.Code >= 0x80 }

// ParseAck reads one of the four acknowledgements of a PUBLISH. Reason String
// and User Properties are checked and dropped.
func ParseAck(t Type, body []byte, v Version) (Ack, error) {
	c := cursor{b: body}
	a := Ack{PacketID: c.packetID()}
	if v != V5 || len(c.b) == 0 {
		return a, c.end()
	}
	a.Code = c.uint8()
	if !ackCode(t, a.Code) {
		return a, errCode
	}
	if len(c.b) == 0 {
		return a, c.end()
	}
	r := c.properties(ackProps)
	if err := r.skip(); err != nil {
		return a, err
	}
	return a, c.end()
}

// ackCode reports whether code belongs to the packet type
// [MQTT-3.4.2-1, MQTT-3.5.2-1, MQTT-3.6.2-1, MQTT-3.7.2-1].
func ackCode(t Type, code byte) bool {
	if t == PUBREL || t == PUBCOMP {
		return code == CodeSuccess || code == CodePacketNotFound
	}
	switch code {
	case CodeSuccess, CodeNoSubscribers, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99:
		return true
	}
	return false
}

// AppendAck appends a PUBACK, PUBREC, PUBREL or PUBCOMP in its shortest form.
// The code is left out before version 5.
func AppendAck(dst []byte, t Type, id uint16, code byte, v Version) []byte {
	first := byte(t) << 4
	if t == PUBREL {
		first |= 2
	}
	if v != V5 || code == CodeSuccess {
		return append(dst, first, 2, byte(id>>8), byte(id))
	}
	return append(dst, first, 3, byte(id>>8), byte(id), code)
}

// AppendPingresp appends a PINGRESP.
func AppendPingresp(dst []byte) []byte { return append(dst, byte(PINGRESP)<<4, 0) }

// ParseEmpty checks the body of a packet that has none.
func ParseEmpty(body []byte) error {
	if len(body) > 0 {
		return errLong
	}
	return nil
}
