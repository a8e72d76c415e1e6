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
// With MultiStream a client may open data streams beside that control stream, for
// PUBLISH, SUBSCRIBE, UNSUBSCRIBE and their acknowledgements. Each has its own
// order and its own packet identifiers; answers come back on the stream of the
// request, messages on that of their SUBSCRIBE. What the standard leaves to us:
//
//   - Data streams are served after CONNACK, up to 15 at a time.
//   - A packet that a data stream cannot carry, or that is malformed, resets the
//     stream with the reason code of MQTT. The session and the others live.
//   - A data stream that is reset, or whose answers the client refuses, loses its
//     subscriptions, but for filters that the client asks for on another stream at
//     that time. Messages with QoS 1 and 2 that wait for it go to the control
//     stream. Deliveries that it has not acknowledged come again when the client
//     resumes its session, and may be acknowledged on any other stream.
//   - PUBREL comes on the stream of its PUBREC, on the control stream when that one
//     has ended. When it was aborted it may come a second time.
//   - A data stream that the client ends in order gets the answers that it waits
//     for, and ends. Its subscriptions go on, on the control stream.
//   - SUBACK says what a data stream gets; of 4096 filters at most, the messages of
//     further ones come on the control stream.
//   - The same filter on two streams is one subscription, of the later one.
//   - A client that does not read a data stream loses QoS 0 messages for it when
//     256 KiB wait; with QoS 1 and 2 it is disconnected after the write timeout.
//   - There are no topic aliases: between streams there is no order.
//
// What travels on the stream, and its deadlines, are the business of package
// mqtt, which owns the connections.
package quic
