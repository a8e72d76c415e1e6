// Package coap is the CoAP adapter: an endpoint for CoAP over UDP (RFC 7252)
// whose peers publish and subscribe through broker sessions.
//
//	PUT, POST /ps/{topic}       publish
//	GET /ps/{topic}             read the retained value
//	GET /ps/{filter} Observe 0  subscribe, notifications as in RFC 7641
//	GET /.well-known/core       discovery
//
// What an answer means: 2.04 to a confirmable publish is sent once the message
// is durable wherever it must be; a non-confirmable publish is QoS 0.
//
// The message layer (deduplication, retransmission, separate responses), the
// block-wise transfer (RFC 7959), Observe and Echo (RFC 9175) are this
// package's own; github.com/plgd-dev/go-coap supplies the message encoding.
//
// One loop serves one socket: a reader goroutine that takes datagrams in
// batches and a worker goroutine for timers and for what the broker reports.
// Both work under the loop's mutex, so a peer needs no goroutine and no lock of
// its own. Nothing in a loop waits for a peer or for the broker: Publish is
// called with broker.NoWait, and outcomes come back as events.
package coap
