package gateway

import (
	"github.com/prometheus/client_golang/prometheus"

	"gantry/broker"
	"gantry/gateway/admin"
	"gantry/gateway/config"
)

// listenerStatus shows what is open, in the order of the configuration.
func (g *Gateway) listenerStatus(s *broker.Stats) []admin.Listener {
	list := make([]admin.Listener, 0, len(g.listeners))
	for _, l := range g.listeners {
		transport, limit := g.transport(l.protocol, l.name)
		a := admin.Listener{
			Name: l.name, Protocol: l.protocol, Transport: transport, Address: l.server.Addr().String(),
			Clients: s.Clients[broker.Listener{Protocol: l.protocol, Name: l.name}],
		}
		if counter, ok := l.server.(interface{ Connections() int }); ok {
			open := counter.Connections()
			a.Connections, a.MaxConnections = &open, limit
		}
		list = append(list, a)
	}
	return list
}

// transport is what a listener speaks below its protocol, and how many
// connections it takes.
func (g *Gateway) transport(protocol, name string) (transport string, maxConnections int) {
	switch protocol {
	case "mqtt":
		for i := range g.cfg.Listeners.MQTT {
			if c := &g.cfg.Listeners.MQTT[i]; c.Name == name {
				return mqttTransport(c), c.MaxConnections
			}
		}
	case "coap":
		for i := range g.cfg.Listeners.CoAP {
			if c := &g.cfg.Listeners.CoAP[i]; c.Name == name {
				return string(c.Transport), 0
			}
		}
	case "http":
		for i := range g.cfg.Listeners.HTTP {
			if c := &g.cfg.Listeners.HTTP[i]; c.Name == name {
				return "tcp", c.MaxConnections
			}
		}
	}
	return "", 0
}

func mqttTransport(c *config.MQTT) string {
	switch {
	case c.Transport == config.MQTTOverWebSocket && c.TLS != nil:
		return "wss"
	case c.Transport == config.MQTTOverWebSocket:
		return "ws"
	case c.Transport != config.MQTTOverTCP:
		return string(c.Transport)
	case c.TLS != nil:
		return "tls"
	case c.Bind.IsUnix():
		return "unix"
	}
	return "tcp"
}

// registerListeners adds a metric that says what the label listener of the
// others stands for.
func (g *Gateway) registerListeners() error {
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "gantry_gateway_listener_info", Help: "1 for each open listener: its protocol and transport, to be joined by the label listener.",
	}, []string{"listener", "protocol", "transport"})
	for _, l := range g.listeners {
		transport, _ := g.transport(l.protocol, l.name)
		info.WithLabelValues(l.name, l.protocol, transport).Set(1)
	}
	return g.reg.Register(info)
}
