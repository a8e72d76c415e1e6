package mqtt

import (
	"gantry/broker"
	"gantry/protocols/mqtt/wire"
)

// silent in the v3 column: the standard has no return code for it, the
// connection is closed without CONNACK.
const silent = 0xFF

// codes is one Reason in the words of MQTT. Where a packet type does not know
// the exact code, the nearest one that it may carry stands.
type codes struct {
	connack    byte // version 5 CONNACK
	v3         byte // CONNACK return code before version 5
	disconnect byte
	ack        byte // PUBACK, PUBREC
	suback     byte // also UNSUBACK
	// resend: the message was not kept but may be later. Version 5 publishers
	// read it in the code; before, closing the connection without an
	// acknowledgement is the only way to make the client send again.
	resend bool
}

// codeTable has a row for each broker.Reason.
var codeTable = map[broker.Reason]codes{
	broker.Success:                {0x00, 0, 0x00, 0x00, 0x00, false},
	broker.NoSubscribers:          {0x00, 0, 0x00, 0x10, 0x00, false},
	broker.NoSubscriptionExisted:  {0x00, 0, 0x00, 0x00, 0x11, false},
	broker.Unspecified:            {0x80, 3, 0x80, 0x80, 0x80, true},
	broker.Malformed:              {0x81, silent, 0x81, 0x80, 0x80, false},
	broker.ProtocolError:          {0x82, silent, 0x82, 0x80, 0x80, false},
	broker.ImplementationError:    {0x83, 3, 0x83, 0x83, 0x83, false},
	broker.UnsupportedVersion:     {0x84, 1, 0x82, 0x83, 0x83, false},
	broker.InvalidClientID:        {0x85, 2, 0x82, 0x83, 0x83, false},
	broker.BadCredentials:         {0x86, 4, 0x87, 0x87, 0x87, false},
	broker.NotAuthorized:          {0x87, 5, 0x87, 0x87, 0x87, false},
	broker.ServerUnavailable:      {0x88, 3, 0x89, 0x97, 0x80, true},
	broker.ServerBusy:             {0x89, 3, 0x89, 0x97, 0x80, true},
	broker.Banned:                 {0x8A, 5, 0x87, 0x87, 0x87, false},
	broker.ShuttingDown:           {0x88, 3, 0x8B, 0x97, 0x80, true},
	broker.BadAuthMethod:          {0x8C, 5, 0x82, 0x83, 0x83, false},
	broker.KeepAliveTimeout:       {0x80, silent, 0x8D, 0x80, 0x80, true},
	broker.TakenOver:              {0x80, 3, 0x8E, 0x80, 0x80, true},
	broker.InvalidFilter:          {0x83, 3, 0x8F, 0x90, 0x8F, false},
	broker.InvalidTopic:           {0x90, 3, 0x90, 0x90, 0x8F, false},
	broker.PacketIDInUse:          {0x82, 3, 0x82, 0x91, 0x91, false},
	broker.PacketIDNotFound:       {0x82, 3, 0x82, 0x83, 0x80, false},
	broker.ReceiveMaximumExceeded: {0x82, 3, 0x93, 0x97, 0x97, true},
	broker.InvalidAlias:           {0x82, 3, 0x94, 0x90, 0x80, false},
	broker.PacketTooLarge:         {0x95, silent, 0x95, 0x97, 0x97, false},
	broker.RateTooHigh:            {0x9F, 3, 0x96, 0x97, 0x97, true},
	broker.QuotaExceeded:          {0x97, 3, 0x97, 0x97, 0x97, true},
	broker.Administrative:         {0x87, 5, 0x98, 0x83, 0x83, true},
	broker.InvalidPayload:         {0x99, 3, 0x99, 0x99, 0x80, false},
	broker.RetainNotSupported:     {0x9A, 3, 0x9A, 0x83, 0x80, false},
	broker.QoSNotSupported:        {0x9B, 3, 0x9B, 0x83, 0x83, false},
	broker.Closed:                 {0x80, 3, 0x8E, 0x80, 0x80, true},
}

// rows is codeTable by index: acknowledgements look it up for each message.
var rows = func() (r [256]codes) {
	for i := range r {
		r[i] = codeTable[broker.Unspecified]
	}
	for reason, row := range codeTable {
		r[reason] = row
	}
	return r
}()

// subscribeCode is the SUBACK code of one filter.
func subscribeCode(r broker.Reason, granted broker.QoS, v wire.Version) byte {
	if r.OK() {
		return byte(granted)
	}
	if v != wire.V5 {
		return 0x80 // 3.1.1 section 3.9.3 knows no other
	}
	return rows[r].suback
}
