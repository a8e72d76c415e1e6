package config

import (
	"fmt"
	"net/netip"
)

// socket is an address that the file asks to be opened.
type socket struct {
	path    string // of the entry
	bind    Addr
	network string // tcp or udp
}

// validatePorts reports addresses in the file that cannot be open at the same time.
func (c *Config) validatePorts(add check) {
	var sockets []socket
	for i, l := range c.Listeners.MQTT {
		network := "tcp"
		if l.Transport == MQTTOverQUIC {
			network = "udp"
		}
		sockets = append(sockets, socket{fmt.Sprintf("listeners.mqtt[%d]", i), l.Bind, network})
	}
	for i, l := range c.Listeners.CoAP {
		sockets = append(sockets, socket{fmt.Sprintf("listeners.coap[%d]", i), l.Bind, "udp"})
	}
	for i, l := range c.Listeners.HTTP {
		sockets = append(sockets, socket{fmt.Sprintf("listeners.http[%d]", i), l.Bind, "tcp"})
	}
	sockets = append(sockets, socket{"admin", c.Admin.Bind, "tcp"})
	for i, s := range sockets {
		for _, earlier := range sockets[:i] {
			if s.conflicts(earlier) {
				add(s.path+".bind", "%s is already taken by %s.bind (%s)", s.bind, earlier.path, earlier.bind)
				break
			}
		}
	}
}

func (s socket) conflicts(o socket) bool {
	if s.bind.IsUnix() || o.bind.IsUnix() {
		return s.bind == o.bind
	}
	if s.network != o.network || s.bind.port() != o.bind.port() || s.bind.port() == 0 {
		return false
	}
	return s.bind.host() == o.bind.host() || s.bind.wildcard() || o.bind.wildcard()
}

// wildcard reports whether an address stands for all addresses of the machine.
func (a Addr) wildcard() bool {
	if a.host() == "" {
		return true
	}
	ip, err := netip.ParseAddr(a.host())
	return err == nil && ip.IsUnspecified()
}
