// Package mqtt serves MQTT 3.1, 3.1.1 and 5.0 clients over any net.Listener.
//
// Each connection is one session of the core. A connection costs one goroutine
// that reads; a second one that writes exists only while there is something to
// write: packets that answer the client, acknowledgements whose publish the
// core has settled, and what the session's outbox holds. It puts all of them
// into one buffer and one write.
//
// The reader never waits for the disk: acknowledgements wait in a queue, in the
// order of the packets they answer [MQTT-4.6.0-2], until the core calls back.
// When that queue is full, or the client does not take its answers, the reader
// stops and TCP pushes back. No lock is held while a socket is written to, and
// nothing waits for a peer without a deadline.
//
// The package guarantees that every frame is checked strictly before anything
// acts on it (see the wire package), that version 5 peers are told why they are
// disconnected, and that an acknowledgement is written only after the core
// said that the message is kept. It leaves authentication, sessions, routing
// and durability to the core.
package mqtt
