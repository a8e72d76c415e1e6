package quic

import (
	"errors"

	"gantry/protocols/mqtt/wire"
)

var errNoIDs = errors.New("no packet identifier is free")

// ids are the packet identifiers that package mqtt sees of what the client has
// begun. The mux's mu covers them.
//
// Those of the control stream stay what they are, because a client goes on with
// them on a later connection. Data streams get some from the other end of the
// range. The client forgets those with the stream, the session does not: one
// that may have been left open by an earlier connection is closed before it is
// used for QoS 2, where it would pass for a message that has come already.
type ids struct {
	owners  map[uint16]*owner
	next    uint16 // the next one to look at for a data stream
	resumed bool   // the session is older than the connection
	clean   map[uint16]struct{}
}

// owner is who gets the answers with an identifier.
type owner struct {
	st     *stream // nil: nobody, they are dropped
	id     uint16  // the client's
	exact  bool    // QoS 2: PUBREC is not the end
	before int     // PUBCOMPs to drop: answers to what the client did not send

	filters []string // of SUBSCRIBE and UNSUBSCRIBE: what the answer is about
}

func (d *ids) init() {
	d.owners, d.clean, d.next = make(map[uint16]*owner), make(map[uint16]struct{}), 0xFFFF
}

// enter returns the identifier for one of a client. closeFirst says that an
// earlier exchange with it may be open. It is 0 when none is free.
func (d *ids) enter(st *stream, id uint16, exact bool) (sid uint16, closeFirst bool) {
	if sid, ok := st.ids[id]; ok {
		o := d.owners[sid]
		o.exact = o.exact || exact
		return sid, false
	}
	sid = id
	if _, taken := d.owners[id]; taken || !st.control {
		if sid = d.free(); sid == 0 {
			return 0, false
		}
	}
	o := &owner{st: st, id: id, exact: exact}
	d.owners[sid], st.ids[id] = o, sid
	if _, clean := d.clean[sid]; exact && d.resumed && !clean && (!st.control || sid != id) {
		d.clean[sid] = struct{}{}
		o.before = 1
		return sid, true
	}
	return sid, false
}

// free looks for an identifier that nobody uses, from the upper end.
func (d *ids) free() uint16 {
	for range 0xFFFF {
		id := d.next
		if d.next--; d.next == 0 {
			d.next = 0xFFFF
		}
		if _, taken := d.owners[id]; !taken {
			return id
		}
	}
	return 0
}

// own takes an identifier for a request that no client has made.
func (d *ids) own() uint16 {
	id := d.free()
	if id != 0 {
		d.owners[id] = &owner{}
	}
	return id
}

// answer says whose an answer is. st is nil when nobody waits for it.
func (d *ids) answer(t wire.Type, sid uint16, failed bool) (st *stream, id uint16) {
	o := d.owners[sid]
	if o == nil {
		return nil, 0
	}
	if t == wire.PUBCOMP && o.before > 0 {
		o.before--
		return nil, 0
	}
	if t != wire.PUBREC || failed {
		delete(d.owners, sid)
		if o.st != nil {
			delete(o.st.ids, o.id)
		}
	}
	return o.st, o.id
}

// asks remembers the filters of a request of the client until its answer.
func (d *ids) asks(st *stream, id uint16, filters []string) {
	if o := d.owners[st.ids[id]]; o != nil && o.filters == nil {
		o.filters = filters
	}
}

// asked returns the filters of a request whose answer has come.
func (d *ids) asked(sid uint16) []string {
	o := d.owners[sid]
	if o == nil || o.st == nil {
		return nil
	}
	return o.filters
}

// allAsked are the filters of all requests that are not answered.
func (d *ids) allAsked() map[string]bool {
	all := make(map[string]bool)
	for _, o := range d.owners {
		for _, f := range o.filters {
			all[f] = true
		}
	}
	return all
}

// abandon takes the identifiers of a stream that has ended. Nobody gets their
// answers any more. It returns those of QoS 2, whose PUBREL will not come, and
// the filters of requests that are not answered.
func (d *ids) abandon(st *stream) (open []uint16, filters []string) {
	for id, sid := range st.ids {
		o := d.owners[sid]
		filters = append(filters, o.filters...)
		o.st, o.filters = nil, nil
		if o.exact {
			open = append(open, sid)
		}
		delete(st.ids, id)
	}
	return open, filters
}

// abandonExact is abandon for QoS 2 alone: the other answers are waited for.
func (d *ids) abandonExact(st *stream) (open []uint16) {
	for id, sid := range st.ids {
		if o := d.owners[sid]; o.exact {
			o.st = nil
			open = append(open, sid)
			delete(st.ids, id)
		}
	}
	return open
}
