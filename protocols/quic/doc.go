// Package quic puts QUIC (RFC 9000) under MQTT, as EMQX and its clients do it:
// ALPN "mqtt", and the first bidirectional stream that the client opens carries
// the whole MQTT connection.
//
// It guarantees that a client costs nothing before it has a place: connections
// and handshakes are capped, and beyond a number of open handshakes a client
// must prove its address (Retry) before any key is computed. Nothing that a
// client sends before the handshake is complete is acted on (no 0-RTT): it
// could be sent again by somebody else. A client may move to another address
// and go on. After a restart the clients of the old process are told at once
// that their connections are gone, by a key that is kept on disk.
//
// What travels on the stream, and its deadlines, are the business of package
// mqtt, which owns the connections.
package quic
