package mqtt

import "slices"

// Rule is a case of a transport: what RFC 6455 (WebSocket) and TLS demand, and
// what a server that browsers can reach must refuse. No statement of MQTT says it.
type Rule struct {
	Pitfall
	// Over are the transports that it is for.
	Over []Transport
}

// Rules returns the rules of a transport, to be tried with a target of that
// transport.
func Rules(t Transport) []Rule {
	return slices.DeleteFunc(slices.Concat(webSocketRules, tlsRules), func(r Rule) bool { return !slices.Contains(r.Over, t) })
}

var (
	webSockets = []Transport{WebSocket, SecureWebSocket}
	withTLS    = []Transport{TLS, SecureWebSocket}
)

var webSocketRules = []Rule{
	{Pitfall{"Subprotocol", "a request without the subprotocol mqtt or mqttv3.1 is refused", v5, subprotocols}, webSockets},
	{Pitfall{"Path", "a request for another path gets 404", v5, otherPath}, webSockets},
	{Pitfall{"Origin", "a page of a foreign origin gets 403, one of the server's own address and a program do not", v5, origins}, webSockets},
	{Pitfall{"Request", "what is no request for a WebSocket of version 13 is refused with the right status", v5, badRequests}, webSockets},
	{Pitfall{"Fragments", "a message may come in many frames, with control frames between them", v311, fragments}, webSockets},
	{Pitfall{"Ping", "a ping is answered with its payload, also before CONNECT", v311, wsPings}, webSockets},
	{Pitfall{"CloseCodes", "a frame that is not allowed ends the connection with the right code", v5, closeCodes}, webSockets},
	{Pitfall{"CloseIsNoDisconnect", "a Close frame is answered, and without DISCONNECT the will goes out", v311, closeWithoutDisconnect}, webSockets},
	{Pitfall{"DisconnectCloses", "after DISCONNECT the server closes with 1000", v5, disconnectCloses}, webSockets},
}

var tlsRules = []Rule{
	{Pitfall{"Versions", "TLS 1.2 and 1.3 are spoken, older versions are not", v311, tlsVersions}, withTLS},
	{Pitfall{"Applications", "a client may name mqtt as its application or none, but nothing else", v311, tlsApplications}, []Transport{TLS}},
	{Pitfall{"Plain", "CONNECT without TLS gets no CONNACK", v311, plainOnTLS}, withTLS},
	{Pitfall{"NoHandshake", "a connection without a handshake is ended", v311, silentTLS}, withTLS},
	{Pitfall{"CutIsNoDisconnect", "a TLS connection that is cut without close_notify is lost: the will goes out", v311, cutTLS}, []Transport{TLS}},
	{Pitfall{"ClientCertificate", "where certificates are required, only a client with a good one is served", v311, clientCertificates}, []Transport{TLS}},
}
