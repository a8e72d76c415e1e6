package embedded

import (
	"encoding/binary"
	"fmt"

	"gantry/broker"
)

// fields reads the fields of a record, an op or a target one by one. After the first error all reads return zero values.
type fields struct {
	b   []byte
	off int
	bad bool
}

func (f *fields) fail() {
	f.bad = true
	f.off = len(f.b)
}

func (f *fields) uvarint() uint64 {
	v, n := binary.Uvarint(f.b[f.off:])
	if n <= 0 {
		f.fail()
		return 0
	}
	f.off += n
	return v
}

func (f *fields) varint() int64 {
	v, n := binary.Varint(f.b[f.off:])
	if n <= 0 {
		f.fail()
		return 0
	}
	f.off += n
	return v
}

func (f *fields) byte() byte {
	if f.off >= len(f.b) {
		f.fail()
		return 0
	}
	f.off++
	return f.b[f.off-1]
}

func (f *fields) bytes() []byte {
	n := f.uvarint()
	if n > uint64(len(f.b)-f.off) {
		f.fail()
		return nil
	}
	from := f.off
	f.off += int(n)
	return f.b[from:f.off:f.off]
}

func (f *fields) rest() []byte {
	from := f.off
	f.off = len(f.b)
	return f.b[from:]
}

func (f *fields) more() bool { return f.off < len(f.b) }

func (f *fields) end() error {
	if f.bad {
		return errShort
	}
	if f.more() {
		return fmt.Errorf("%d bytes too many", len(f.b)-f.off)
	}
	return nil
}

// record iterates over the ops of one log record. Everything it returns shares memory with the record.
type record struct {
	f        fields
	messages int
	table    int // offset of the first message
	near     int // a message that was looked up, and its offset: lookups mostly ascend
	nearOff  int
}

// openRecord skips the message table.
func openRecord(b []byte) (record, error) {
	r := record{f: fields{b: b}}
	switch v := r.f.byte(); {
	case v > recordVersion:
		return r, fmt.Errorf("record of version %d: %w", v, ErrVersion)
	case v < plainVersion:
		return r, fmt.Errorf("record of unknown version %d", v)
	case len(b) < tableOffset:
		return r, errShort
	}
	r.f.off = tableOffset
	n := r.f.uvarint()
	if n > uint64(len(b)) {
		return r, errShort
	}
	r.messages, r.table, r.nearOff = int(n), r.f.off, r.f.off
	for range r.messages {
		r.f.uvarint()
		r.f.bytes()
	}
	if r.f.bad {
		return r, errShort
	}
	return r, nil
}

// message returns an entry of the table: its size by the rule of Message.StoredSize and its stored form. whole is both with their lengths.
func (r *record) message(index uint64) (stored uint64, msg, whole []byte, ok bool) {
	if index >= uint64(r.messages) {
		return 0, nil, nil, false
	}
	if int(index) < r.near {
		r.near, r.nearOff = 0, r.table
	}
	f := fields{b: r.f.b, off: r.nearOff}
	from := f.off
	for i := r.near; i <= int(index); i++ {
		from = f.off
		stored, msg = f.uvarint(), f.bytes()
	}
	r.near, r.nearOff = int(index), from
	return stored, msg, f.b[from:f.off], !f.bad
}

// op is one decoded op. Which fields count depends on the kind.
type op struct {
	kind   broker.OpKind
	off    int    // of the op in the record
	body   []byte // the op without kind and length
	client []byte
	key    []byte // filter or topic
	num    uint64 // sequence number, number of a delayed message, packet id or record number
	due    int64
	index  uint64 // message index
	count  int    // targets
	items  fields // reads the targets
}

type target struct {
	client []byte
	seq    uint64
	flags  byte
	ids    fields // reads the subscription ids
	idN    int
	share  []byte
	whole  []byte
}

// next returns false at the end of the record.
func (r *record) next(o *op) (bool, error) {
	if !r.f.more() {
		return false, nil
	}
	*o = op{off: r.f.off}
	o.kind = broker.OpKind(r.f.byte())
	o.body = r.f.bytes()
	if r.f.bad {
		return false, errShort
	}
	f := fields{b: o.body}
	switch o.kind {
	case broker.OpPutSession, broker.OpDeleteSession:
		o.client = f.bytes()
	case broker.OpSubscribe, broker.OpUnsubscribe:
		o.client, o.key = f.bytes(), f.bytes()
	case broker.OpRetain:
		o.index, o.key = f.uvarint(), f.bytes()
	case broker.OpUnretain:
		o.key = f.bytes()
	case broker.OpEnqueue:
		o.index, o.count = f.uvarint(), int(min(f.uvarint(), uint64(len(o.body))))
		o.items = f
	case broker.OpDequeue, broker.OpReleased, broker.OpSent, broker.OpInbound, broker.OpInboundDone, opBorn:
		o.client, o.num = f.bytes(), f.uvarint()
	case broker.OpDelay:
		o.index, o.num, o.due = f.uvarint(), f.uvarint(), f.varint()
	case broker.OpDelayDone:
		o.num = f.uvarint()
	case opVoid:
		o.num, o.index = f.uvarint(), f.uvarint()
	default:
		return false, fmt.Errorf("unknown op kind %d", o.kind)
	}
	if f.bad {
		return false, errShort
	}
	return true, nil
}

// target reads the next target of an enqueue; call it count times.
func (o *op) target() target {
	f := &o.items
	from := f.off
	t := target{client: f.bytes(), seq: f.uvarint(), flags: f.byte()}
	n := f.uvarint()
	t.ids, t.idN = *f, int(min(n, uint64(len(f.b))))
	for range t.idN {
		f.uvarint()
	}
	if t.flags&flagShare != 0 {
		t.share = f.bytes()
	}
	t.whole = f.b[from:f.off]
	return t
}

func (t *target) subscriptionIDs() []uint32 {
	if t.idN == 0 {
		return nil
	}
	ids := make([]uint32, t.idN)
	for i := range ids {
		ids[i] = uint32(t.ids.uvarint())
	}
	return ids
}

// check reads a whole record and reports what is wrong with it, so that applying it afterwards cannot stop half way.
func check(b []byte) error {
	r, err := openRecord(b)
	if err != nil {
		return err
	}
	var o op
	for {
		more, err := r.next(&o)
		if err != nil || !more {
			return err
		}
		if err := r.checkOp(&o); err != nil {
			return fmt.Errorf("op kind %d: %w", o.kind, err)
		}
	}
}

func (r *record) checkOp(o *op) error {
	var err error
	switch o.kind {
	case broker.OpPutSession:
		_, err = decodeSession(o.body)
	case broker.OpSubscribe:
		_, err = decodeSubscription(o.body)
	case broker.OpRetain, broker.OpEnqueue, broker.OpDelay:
		if _, _, _, ok := r.message(o.index); !ok {
			return fmt.Errorf("no message %d", o.index)
		}
		items := o.items
		for range o.count {
			o.target()
		}
		if o.items.bad {
			err = errShort
		}
		o.items = items
	}
	return err
}
