// Package httppush lets plain HTTP clients publish and read retained values.
//
//	POST /api/v5/publish        one message as JSON, in EMQX's form
//	POST /api/v5/publish/bulk   up to 1000 of them
//	POST /v1/topics/{topic}     the body is the payload; PUT is the same
//	GET  /v1/topics/{topic}     the retained value
//
// An answer is an acknowledgement. 200 means that the message is durable
// wherever it must be (QoS 1, the default of /v1, and 2); 202 on /v1 means
// that a QoS 0 message is accepted in memory; any error means that the client
// keeps the responsibility. When the broker has not answered within
// Config.AckTimeout the answer is 503: the message may still arrive, so a
// client that repeats it publishes at least once. A message that nobody takes
// is acknowledged like any other; /v1 says so in the body (reason_code 16),
// /api/v5 answers 202 with that body, as EMQX does. The JSON form has EMQX's
// default of QoS 0 and its 200 for it.
//
// HTTP has no packet identifiers, so QoS 2 says how the message is delivered,
// and cannot make a repeated request one publication.
//
// Every request belongs to a session of the broker, opened when the first
// request of a client comes and kept while it is used. The client is named by
// the header X-Client-Id, or clientid in the JSON form, or else it is
// http-USER@ADDRESS or http-ADDRESS. Sessions are shared by the requests that
// agree in client id, credentials and address. A client id that a client of
// another protocol holds is refused with 409: one request must not end that
// client's session.
//
// Errors are application/problem+json (RFC 9457) with the members code and
// message of EMQX's errors, and reason_code, the MQTT 5 code, where the broker
// gave one.
package httppush
