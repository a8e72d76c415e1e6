package broker

import (
	"context"
	"errors"
	"time"
)

// ErrBusy is returned by Store.Commit when it may not block and would have to.
var ErrBusy = errors.New("store busy")

// Store keeps what must survive a restart: sessions, subscriptions, retained
// messages, queued and in-flight messages, wills. Implementations pass the
// suite of persist/storetest.
type Store interface {
	// Load returns everything that was committed, without the messages of
	// queues, which Queued reads. It is called once, before anything else.
	Load(ctx context.Context) (*State, error)

	// Commit applies all of the batch or nothing. It copies what it needs
	// before it returns. Batches take effect in the order of the calls; done
	// is called exactly once for each, in that order, when the batch is
	// durable (nil) or was given up (why); it must not block. Commit blocks
	// while too much waits for the disk, until ctx ends; with a nil ctx it
	// returns ErrBusy instead. When it returns an error, done is not called
	// and nothing was applied. done may be nil.
	Commit(ctx context.Context, b *Batch, done func(error)) error

	// Queued returns up to max committed entries of one client's queue with
	// sequence numbers >= from, ascending. The messages belong to the caller.
	// An entry whose body can no longer be read is returned with a nil
	// Message, so that the caller can count the loss and go on.
	Queued(clientID string, from uint64, max int) ([]Queued, error)

	// Close makes durable what was committed and ends. It is safe to call twice.
	Close() error
}

// Batch is a list of changes that become durable together.
type Batch struct{ Ops []Op }

// OpKind says what an Op changes.
type OpKind uint8

// The kinds of change and the fields of Op that each uses.
const (
	OpPutSession    OpKind = iota + 1 // Session: create or replace the record, keep queue and subscriptions
	OpDeleteSession                   // ClientID: the record, its subscriptions, queue and inbound ids
	OpSubscribe                       // ClientID, Subscription: create or replace
	OpUnsubscribe                     // ClientID, Topic (the filter)
	OpRetain                          // Message: the retained value of its topic
	OpUnretain                        // Topic
	OpEnqueue                         // Message, Targets: one body for all targets
	OpDequeue                         // ClientID, Seq: completed by its receiver, expired or dropped
	OpReleased                        // ClientID, Seq: PUBREC came, only PUBREL is to be resent
	OpSent                            // ClientID, Seq: everything up to Seq may have been sent
	OpInbound                         // ClientID, PacketID: QoS 2 publish accepted, PUBREL awaited
	OpInboundDone                     // ClientID, PacketID
	OpDelay                           // Message, Seq (its number), Due: publish it later
	OpDelayDone                       // Seq: published, expired or deleted
)

// Op is one change. Which fields count depends on Kind.
type Op struct {
	Kind         OpKind
	ClientID     string
	Topic        string
	Seq          uint64
	PacketID     uint16
	Due          int64 // Unix milliseconds
	Message      *Message
	Targets      []Target
	Session      *SessionRecord
	Subscription *Subscription
}

// Target is one queue that gets a message. Sequence numbers of a queue
// ascend, but batches of several publishers may reach the store out of order.
type Target struct {
	ClientID        string
	Seq             uint64
	QoS             QoS
	Retain          bool
	SubscriptionIDs []uint32
	Share           string // filter of the shared subscription that it came by, "" for others
}

// Queued is one entry of a stored queue.
type Queued struct {
	Seq             uint64
	QoS             QoS
	Retain          bool
	Released        bool // OpReleased was committed
	SubscriptionIDs []uint32
	Share           string
	Message         *Message // nil: the body cannot be read any more
}

// SessionRecord is the stored part of a session's own state.
type SessionRecord struct {
	ClientID   string
	Username   string
	Protocol   string
	Expiry     time.Duration // 0: the session ends with its connection; stored only for its will
	DetachedAt int64         // Unix milliseconds; 0 while attached
	NextSeq    uint64        // sequence numbers below it may have been used
	Will       *Will         // nil when there is none
	Mount      string        // mountpoint of the client's topics
}

// Will is the message that a broker publishes when a client is lost. Its Time
// is 0 and its Expires, unlike that of a published message, is a number of
// milliseconds that runs from the publication (MQTT 5 section 3.1.3.2.4).
type Will struct {
	Message *Message
	Delay   time.Duration // waits this long for the client to come back
}

// State is what Load returns.
type State struct {
	Sessions []StoredSession
	Retained []*Message
	Delayed  []Delayed
}

// Delayed is a message that is to be published later.
type Delayed struct {
	Seq     uint64 // identifies it
	Due     int64  // Unix milliseconds
	Message *Message
}

// StoredSession is one session with what belongs to it.
type StoredSession struct {
	Record        SessionRecord
	Subscriptions []Subscription
	Inbound       []uint16 // packet ids of accepted QoS 2 publishes without PUBREL
	Sent          uint64   // highest OpSent
	First         uint64   // lowest sequence number in the queue, 0 when it is empty
	Last          uint64   // highest
	Count         int      // entries in the queue
	Bytes         int64    // their sizes by the rule of Message.StoredSize
}

// Subscription is one subscription of a session.
type Subscription struct {
	Filter            string
	QoS               QoS
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    uint8  // 0 send, 1 send when new, 2 do not send [MQTT-3.8.3.1]
	ID                uint32 // Subscription Identifier, 0 = none
}

// StoredSize is what the message counts against a queue's byte cap.
func (m *Message) StoredSize() int64 { return int64(m.size()) }
