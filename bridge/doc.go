// Package bridge carries messages from the broker to other systems.
//
// A [Route] says which messages go and what they look like there. A [Stage] is
// the broker's hook: it renders every matching message into a record, hands the
// record to the bridge's queue on disk and lets the publisher's acknowledgement
// wait for it. A [Forwarder] reads the queue and supervises a [Sink], which
// sends the records and confirms what the other side has acknowledged.
//
//	broker → Stage → queue on disk ⇢ Forwarder → Feed → Sink
//
// The package guarantees: a record is complete when it is queued, so that a
// later resend is the same bytes whatever has become of the configuration; a
// record leaves the queue only after the sink confirmed it or after it is in
// the dead-letter file; a sink that fails, panics or is absent is tried again
// for ever and never disturbs the broker. How records travel is left to the
// sinks, how they are kept to bridge/queue.
package bridge
