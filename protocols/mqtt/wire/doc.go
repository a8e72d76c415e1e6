// Package wire is the MQTT packet codec of the server: versions 3.1, 3.1.1 and
// 5.0. It parses what a client sends and appends what a server sends.
//
// Parsers are strict. They check fixed-header flags, length encodings, UTF-8,
// the property table, reserved bits and reason codes before they return, and
// they consume the whole body or fail. Every error is a *[broker.Error] whose
// Reason is [broker.Malformed] or [broker.ProtocolError] (a few name their own
// reason code of the standard). A []byte that a parser returns aliases its
// input; a string never does.
//
// Append functions add one complete packet to a slice. They never fail: a
// packet that MQTT cannot express is refused beforehand by Measure.
//
// Sections in comments are those of the OASIS standard MQTT Version 5.0.
package wire
