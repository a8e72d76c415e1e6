// Package ws carries a byte stream in the binary messages of WebSockets (RFC
// 6455), as MQTT wants it: the standard says that packets are not aligned with
// frames [MQTT-6.0.0-2], so a connection is a plain net.Conn.
//
// It is ours, and not a library, for two reasons. A deadline must interrupt a
// read without ending the connection, because the reader of MQTT uses deadlines
// to look at the time; the libraries take every error of a read as final. And
// an idle connection must cost no buffer: bytes are unmasked and compacted
// where the caller wants them, so that a WebSocket costs as much as a TCP
// connection and a few hundred bytes.
//
// It guarantees that every frame is checked before anything of it is passed on,
// that the client is told by a close code what was wrong, that pings are
// answered, and that a page in a browser can use the listener only from an
// origin that is allowed. There are no extensions: compression would cost tens
// of KiB per connection, and together with secrets in one stream it leaks them.
package ws
