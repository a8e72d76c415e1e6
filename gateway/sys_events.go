package gateway

import (
	"encoding/json"
	"net"
	"strings"

	"gantry/broker"
)

// connection publishes that a client came or went, in the form of EMQX. These
// events are not retained, and not made when nobody waits for them. It is a
// broker.Config.OnConnection.
func (s *sysTopics) connection(e broker.ConnectionEvent) {
	what := "disconnected"
	if e.Connected {
		what = "connected"
		now, most := s.connected.Add(1), s.most.Load()
		for now > most && !s.most.CompareAndSwap(most, now) {
			most = s.most.Load()
		}
	} else {
		s.connected.Add(-1)
	}
	if !s.events || !s.wanted(e.ClientID, what) {
		return
	}
	at := e.At.UnixMilli()
	event := clientEvent{
		ClientID: e.ClientID, Username: e.Username, IPAddress: e.RemoteAddr.Addr().Unmap().String(), Port: s.ports[e.Protocol+" "+e.Listener],
		Listener: e.Listener, Time: at,
	}
	event.Protocol, event.Version = emqxProtocol(e.Protocol, e.Version)
	if !e.RemoteAddr.IsValid() {
		event.IPAddress = "" // it came over a Unix socket
	}
	if e.Connected {
		event.greeting = &greeting{
			KeepAlive: int64(e.KeepAlive.Seconds()), Expiry: int64(min(e.Expiry.Seconds(), neverExpires)), CleanStart: e.CleanStart, ConnectedAt: at,
		}
	} else {
		event.Reason, event.DisconnectedAt = emqxReason(e.Reason), at
	}
	s.event(e.ClientID, what, &event)
}

// neverExpires is the expiry of a session that has none, as MQTT writes it.
const neverExpires = 1<<32 - 1

// clientEvent has the fields of EMQX, and the name of the listener.
type clientEvent struct {
	ClientID  string `json:"clientid"`
	Username  string `json:"username"`
	IPAddress string `json:"ipaddress"`
	Port      uint16 `json:"sockport"`
	Protocol  string `json:"proto_name"`
	Version   int    `json:"proto_ver"`
	Listener  string `json:"listener"`
	Time      int64  `json:"ts"`
	*greeting
	DisconnectedAt int64  `json:"disconnected_at,omitempty"`
	Reason         string `json:"reason,omitempty"`
}

type greeting struct {
	KeepAlive   int64 `json:"keepalive"`
	Expiry      int64 `json:"expiry_interval"`
	CleanStart  bool  `json:"clean_start"`
	ConnectedAt int64 `json:"connected_at"`
	Connack     int   `json:"connack"`
}

// subscription publishes that a client subscribed or unsubscribed, in the form
// of EMQX. It is a broker.Config.OnSubscription.
func (s *sysTopics) subscription(e broker.SubscriptionEvent) {
	what := "unsubscribed"
	if e.Subscribed {
		what = "subscribed"
	}
	if !s.wanted(e.ClientID, what) {
		return
	}
	sub := &e.Subscription
	event := subscriptionEvent{ClientID: e.ClientID, Username: e.Username, Protocol: e.Protocol, Topic: sub.Filter, Time: e.At.UnixMilli()}
	if e.Subscribed {
		event.Options = &subscriptionOptions{
			QoS: byte(sub.QoS), NoLocal: bit(sub.NoLocal), RetainAsPublished: bit(sub.RetainAsPublished), RetainHandling: sub.RetainHandling, New: e.New,
		}
	}
	s.event(e.ClientID, what, &event)
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}

type subscriptionEvent struct {
	ClientID string               `json:"clientid"`
	Username string               `json:"username"`
	Protocol string               `json:"protocol"`
	Topic    string               `json:"topic"`
	Time     int64                `json:"ts"`
	Options  *subscriptionOptions `json:"subopts,omitempty"`
}

type subscriptionOptions struct {
	QoS               byte `json:"qos"`
	NoLocal           byte `json:"nl"`
	RetainAsPublished byte `json:"rap"`
	RetainHandling    byte `json:"rh"`
	New               bool `json:"is_new"`
}

// wanted reports whether somebody waits for the events of a client.
func (s *sysTopics) wanted(clientID, what string) bool {
	if strings.ContainsAny(clientID, "+#") {
		return false // its name cannot be part of a topic
	}
	return s.watched(s.eventTopic(clientID, what))
}

func (s *sysTopics) eventTopic(clientID, what string) string {
	return "$SYS/brokers/" + s.node + "/clients/" + clientID + "/" + what
}

func (s *sysTopics) event(clientID, what string, event any) {
	payload, err := json.Marshal(event)
	if err != nil {
		return
	}
	s.publish(&broker.Message{Topic: s.eventTopic(clientID, what), Payload: payload})
}

// emqxProtocol is how EMQX names a protocol and its version.
func emqxProtocol(protocol, version string) (name string, number int) {
	switch protocol {
	case "mqtt":
		switch version {
		case "3.1":
			return "MQIsdp", 3
		case "3.1.1":
			return "MQTT", 4
		}
		return "MQTT", 5
	case "coap":
		return "CoAP", 1
	}
	return strings.ToUpper(protocol), 1
}

// emqxReason is how EMQX says why a connection ended.
func emqxReason(r broker.Reason) string {
	switch r {
	case broker.Success:
		return "normal"
	case broker.Unspecified:
		return "closed" // by the peer or the network, without a word
	case broker.KeepAliveTimeout:
		return "keepalive_timeout"
	case broker.TakenOver:
		return "takenover"
	case broker.Administrative:
		return "kicked"
	}
	return strings.ReplaceAll(r.String(), " ", "_")
}

func portOf(a net.Addr) uint16 {
	switch a := a.(type) {
	case *net.TCPAddr:
		return uint16(a.Port)
	case *net.UDPAddr:
		return uint16(a.Port)
	}
	return 0 // of a Unix socket
}
