package quic

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/quic-go/quic-go"

	"gantry/broker"
	"gantry/protocols/mqtt/wire"
)

// errType is what a data stream cannot carry.
var errType = errors.New("packet type is for the control stream")

// errAlias: topic aliases are not offered to clients with several streams,
// between which there is no order.
var errAlias = &broker.Error{Reason: broker.InvalidAlias, Err: errors.New("topic alias on a data stream")}

// inbound prepares a packet of the client for package mqtt: the identifier of
// what the client begins is replaced. first, if there is any, must go before
// the packet, which is then looked at again.
func (st *stream) inbound(h wire.Header, p []byte) (first []byte, err error) {
	body := p[h.Size:]
	if !st.control {
		if err := st.check(h, body); err != nil {
			return nil, err
		}
	}
	at, exact := 0, false
	switch h.Type {
	case wire.CONNECT:
		return nil, st.learn(h, body)
	case wire.PUBLISH:
		qos := h.Flags >> 1 & 3
		if qos == 0 || len(body) < 2 {
			return nil, nil
		}
		at, exact = 2+int(binary.BigEndian.Uint16(body)), qos == 2
	case wire.SUBSCRIBE, wire.UNSUBSCRIBE:
		return nil, st.request(h.Type, body)
	case wire.PUBREL:
	case wire.PUBCOMP, wire.PUBREC:
		st.learnRelease(h.Type, body)
		return nil, nil
	default:
		return nil, nil
	}
	if len(body) < at+2 {
		return nil, nil // malformed, and package mqtt says so
	}
	return st.renumber(body[at:at+2], exact)
}

// renumber replaces an identifier.
func (st *stream) renumber(field []byte, exact bool) (first []byte, err error) {
	id := binary.BigEndian.Uint16(field)
	if id == 0 {
		return nil, nil // a violation, and package mqtt says so
	}
	m := st.m
	m.mu.Lock()
	sid, closeFirst := m.ids.enter(st, id, exact)
	m.mu.Unlock()
	if sid == 0 {
		return nil, errNoIDs
	}
	if closeFirst {
		return wire.AppendAck(nil, wire.PUBREL, sid, wire.CodeSuccess, m.version), nil
	}
	binary.BigEndian.PutUint16(field, sid)
	return nil, nil
}

// learn takes from CONNECT what the mux must know.
func (st *stream) learn(h wire.Header, body []byte) error {
	if st.m.version != 0 {
		return nil
	}
	p, err := wire.ParseConnect(h, body)
	if err == nil {
		st.m.version = p.Version
	}
	return err
}

// check refuses on a data stream what would end the whole connection in package
// mqtt: only the stream ends for it.
func (st *stream) check(h wire.Header, body []byte) error {
	v := st.m.version
	switch h.Type {
	case wire.PUBLISH:
		var p wire.Publish
		err := p.Parse(h.Flags, body, v)
		if err == nil && p.Alias != 0 {
			err = errAlias
		}
		return err
	case wire.PUBACK, wire.PUBREC, wire.PUBREL, wire.PUBCOMP:
		_, err := wire.ParseAck(h.Type, body, v)
		return err
	case wire.SUBSCRIBE:
		_, err := wire.ParseSubscribe(body, v)
		return err
	case wire.UNSUBSCRIBE:
		_, err := wire.ParseUnsubscribe(body, v)
		return err
	}
	return fmt.Errorf("%w: %s", errType, h.Type)
}

// request prepares SUBSCRIBE or UNSUBSCRIBE: its answer will say where messages
// go from then on.
func (st *stream) request(t wire.Type, body []byte) error {
	id, filters := filtersOf(t, body, st.m.version)
	if len(filters) == 0 {
		return nil // malformed, and package mqtt says so
	}
	_, err := st.renumber(body[:2], false)
	if err == nil {
		st.m.mu.Lock()
		st.m.ids.asks(st, id, filters)
		if t == wire.SUBSCRIBE {
			st.m.claim(filters)
		}
		st.m.mu.Unlock()
	}
	return err
}

// filtersOf returns the filters of SUBSCRIBE or UNSUBSCRIBE, none if it is
// malformed.
func filtersOf(t wire.Type, body []byte, v wire.Version) (id uint16, filters []string) {
	if t == wire.UNSUBSCRIBE {
		p, err := wire.ParseUnsubscribe(body, v)
		if err != nil {
			return 0, nil
		}
		return p.PacketID, p.Filters
	}
	p, err := wire.ParseSubscribe(body, v)
	if err != nil {
		return 0, nil
	}
	for _, f := range p.Filters {
		filters = append(filters, f.Filter)
	}
	return p.PacketID, filters
}

// learnRelease takes from PUBREC where the PUBREL of a delivery goes, until
// PUBCOMP, or a PUBREC that is a refusal, ends the delivery.
func (st *stream) learnRelease(t wire.Type, body []byte) {
	m := st.m
	p, err := wire.ParseAck(t, body, m.version)
	if err != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if t == wire.PUBCOMP || p.Failed() || st.control {
		delete(m.release, p.PacketID)
		return
	}
	m.release[p.PacketID] = &pubrel{st: st}
}

// streamCode is the code with which a stream is aborted for an error of the
// client, those of MQTT; 0 for any other error.
func streamCode(err error) quic.StreamErrorCode {
	var e *broker.Error
	switch {
	case errors.Is(err, errFrameSize):
		return 0x95 // Packet too large
	case errors.Is(err, errType):
		return 0x82 // Protocol Error
	case errors.Is(err, errNoIDs):
		return 0x93 // Receive Maximum exceeded
	case !errors.As(err, &e):
		return 0
	}
	switch e.Reason {
	case broker.Malformed:
		return 0x81 // Malformed Packet
	case broker.InvalidAlias:
		return 0x94 // Topic Alias invalid
	case broker.InvalidTopic:
		return 0x90 // Topic Name invalid
	case broker.InvalidFilter:
		return 0x8F // Topic Filter invalid
	}
	return 0x82
}
