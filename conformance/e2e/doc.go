// Package e2e is the end-to-end suite: it builds the program gantry, runs it as
// a process of its own, and talks to it as devices, consumers and operators do.
//
// Everything is seen from outside: acknowledgements, records in Kafka, answers
// of the operator interface, log lines and exit codes. Devices keep a ledger of
// what was acknowledged to them, which is compared with what has arrived.
//
// Each test that needs Kafka runs against the stand-in; those about many
// messages and outages also against Apache Kafka where the machine can have it.
package e2e
