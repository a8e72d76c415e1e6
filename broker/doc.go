// Package broker is the domain of the gateway and its core: messages, sessions,
// the topic router, retained values, delivery, wills and the hook stage.
//
// Every client, whatever its protocol, is one kind of session. An adapter opens
// a [Session] with [Broker.Connect], publishes with [Session.Publish] and drains
// the outbox with [Session.Next]. The way of a message is forward only: adapter →
// session → hooks → retained, store, recorders → router → outboxes. An
// acknowledgement is the done callback of Publish; it runs once the message is
// durable wherever it has to be, and no goroutine waits for it.
//
// The package guarantees: an acknowledged message is on disk in every durable
// session queue that must get it and in every recorder that took it; deliveries
// of one session are ordered; an entry leaves its session only when the receiver
// has completed it; no lock is held while a peer is written to. It leaves to
// others: wire formats (protocols/*), disk formats (persist/*), bridges
// (bridge/*).
package broker
