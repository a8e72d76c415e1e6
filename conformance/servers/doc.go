// Package servers gives tests real programs to talk to: Apache Kafka,
// mosquitto, Redis, an in-process Kafka stand-in, and command line clients.
//
// Each server is started by the test that asks for it, on a free loopback port
// with its own temporary folder; nothing that already runs on the machine is
// used. A constructor returns once the server has answered a request of its own
// protocol, and the server is ended by its process id when the test ends. Kill,
// Stop, Restart, Pause and Resume let a test take it away and bring it back on
// the same port with the same data.
//
// A program that is not installed skips the test with the command that installs
// it; with GANTRY_REQUIRE_REAL=1 in the environment it fails the test instead,
// which is how continuous integration runs. Kafka's jars, Python clients and
// MQTT.js are fetched once, with Maven, pip and npm, and kept under the user's cache folder in
// gantry-test.
//
// The servers need a Unix system; the Kafka stand-in runs anywhere.
package servers
