package wire

import "gantry/broker"

// Version is a protocol level as it stands in CONNECT [MQTT-3.1.2-2].
type Version uint8

// The protocol levels. The zero Version means: not known yet.
const (
	V31  Version = 3
	V311 Version = 4
	V5   Version = 5
)

// String returns the version as users write it.
func (v Version) String() string {
	switch v {
	case V31:
		return "3.1"
	case V311:
		return "3.1.1"
	case V5:
		return "5.0"
	}
	return "unknown"
}

// Type is a control packet type (section 2.1.2).
type Type uint8

// The control packet types.
const (
	CONNECT Type = iota + 1
	CONNACK
	PUBLISH
	PUBACK
	PUBREC
	PUBREL
	PUBCOMP
	SUBSCRIBE
	SUBACK
	UNSUBSCRIBE
	UNSUBACK
	PINGREQ
	PINGRESP
	DISCONNECT
	AUTH
)

var typeNames = [16]string{
	"reserved", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP",
	"SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH",
}

// String returns the name in the standard.
func (t Type) String() string { return typeNames[t&15] }

// Bits of the PUBLISH fixed header (section 3.3.1).
const (
	flagRetain = 0x01
	flagQoS    = 0x06
	flagDup    = 0x08
)

// MaxRemaining is the largest Remaining Length that four bytes express.
const MaxRemaining = 268_435_455

// Header is a fixed header.
type Header struct {
	Type   Type
	Flags  byte
	Length int // bytes that follow the header
	Size   int // bytes of the header itself, 2 to 5
}

// Total is the length of the whole packet.
func (h Header) Total() int { return h.Size + h.Length }

// ParseHeader reads the fixed header at the start of b. ok is false when b
// ends before the header does. With a zero v only CONNECT is judged like 3.1.1;
// ParseConnect checks what version 5 demands beyond that.
func ParseHeader(b []byte, v Version) (h Header, ok bool, err error) {
	if len(b) == 0 {
		return Header{}, false, nil
	}
	h.Type, h.Flags = Type(b[0]>>4), b[0]&15
	if err := checkFlags(h.Type, h.Flags, v); err != nil {
		return h, false, err
	}
	for i := 1; i < len(b) && i <= 4; i++ {
		h.Length |= int(b[i]&0x7f) << (7 * (i - 1))
		if b[i] < 0x80 {
			h.Size = i + 1
			if v == V5 && h.Overlong() {
				return h, false, errOverlong
			}
			return h, true, nil
		}
	}
	if len(b) > 4 {
		return h, false, errVarint
	}
	return h, false, nil
}

// Overlong reports whether the Remaining Length used more bytes than it needs.
// Version 5 forbids that [MQTT-1.5.5-1]; the earlier versions do not, and
// there are clients that always write the same number of bytes.
func (h Header) Overlong() bool { return h.Size > 1+varintSize(uint32(h.Length)) }

// checkFlags applies table 2-2 [MQTT-2.1.3-1]. In version 3.1 the DUP bit of
// the acknowledged requests was in use.
func checkFlags(t Type, flags byte, v Version) error {
	switch t {
	case PUBLISH:
		if flags&flagQoS == flagQoS {
			return errQoS3
		}
		if flags&flagDup != 0 && flags&flagQoS == 0 {
			return errDupQoS0
		}
		return nil
	case PUBREL, SUBSCRIBE, UNSUBSCRIBE:
		if v == V31 {
			flags &^= flagDup
		}
		if flags != 2 {
			return errFlags
		}
		return nil
	case 0:
		return errType
	case AUTH:
		if v != V5 {
			return errType
		}
	}
	if flags != 0 {
		return errFlags
	}
	return nil
}

// appendHeader appends a fixed header.
func appendHeader(dst []byte, first byte, length int) []byte {
	return appendVarint(append(dst, first), uint32(length))
}

func malformed(text string) error { return &broker.Error{Reason: broker.Malformed, Err: message(text)} }

func violation(text string) error {
	return &broker.Error{Reason: broker.ProtocolError, Err: message(text)}
}

// message is an error that is only a text.
type message string

func (t message) Error() string { return string(t) }

// The errors of the packet layout; those of one packet stand beside its parser.
var (
	errType      = malformed("unknown packet type")
	errFlags     = malformed("fixed header flags are not the ones of the packet type")
	errQoS3      = malformed("QoS 3")
	errDupQoS0   = malformed("DUP set with QoS 0")
	errVarint    = malformed("variable byte integer is longer than four bytes")
	errOverlong  = malformed("variable byte integer has more bytes than it needs")
	errShort     = malformed("packet ends too early")
	errLong      = malformed("bytes after the end of the packet")
	errUTF8      = malformed("string is not valid UTF-8")
	errNUL       = malformed("string contains U+0000")
	errWildcard  = malformed("topic name contains a wildcard")
	errNoTopic   = malformed("topic name is empty")
	errPacketID0 = violation("packet identifier 0")
	errCode      = violation("reason code is not one of this packet")
)
