// Package mqtt is a black-box suite for MQTT servers: it takes the address of a
// server, sends it packets byte by byte, and judges the answers.
//
// There is one check for each normative statement of MQTT 3.1.1 and MQTT 5.0
// (MQTT-x.y.z-n) that a server can violate. Statements lists them all, in words
// of this project, with those that bind only the client or that cannot be seen
// from outside; the numbers and the meaning are those of the OASIS documents.
// Run judges one server by one statement.
//
// The suite has a packet builder and a strict packet reader of its own, so that
// it shares no mistake with the server. The reader checks every packet of the
// server: flags, lengths, shortest length encoding, UTF-8, which property and
// which reason code may stand in which packet. Every wait has a deadline. That a
// server must not send something is checked with PINGREQ as a fence, not with
// time.
//
// The tests run it against a gantry and a mosquitto of their own. What a server
// is known to do otherwise stands in the table of deviations, and a test fails
// when that table is wrong in either direction. docs/conformance.md is made from
// the statements and the deviations.
package mqtt
