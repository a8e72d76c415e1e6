package gateway

import (
	"context"
	"errors"
	"net"
	"time"

	"gantry/broker"
	"gantry/protocols/coap"
	"gantry/protocols/httppush"
)

// server is the life that all protocol servers share.
type server interface {
	Addr() net.Addr
	Run(ctx context.Context) error
	Close() error
}

type listener struct {
	protocol string
	name     string
	server   server
}

// openListeners binds every listener. A new protocol is one more loop here.
func (g *Gateway) openListeners() error {
	for i := range g.cfg.Listeners.MQTT {
		c := &g.cfg.Listeners.MQTT[i]
		s, err := g.openMQTT(c)
		if err != nil {
			return err
		}
		g.listeners = append(g.listeners, listener{"mqtt", c.Name, s})
	}
	for i := range g.cfg.Listeners.CoAP {
		c := &g.cfg.Listeners.CoAP[i]
		naming, err := namingOf(c.Mountpoint, c.ClientID, c.Username)
		if err != nil {
			return err
		}
		s, err := coap.New(coap.Config{
			Naming: naming,
			Name:   c.Name, Bind: string(c.Bind), Echo: coap.EchoPolicy(c.Echo), MaxPeers: c.MaxPeers,
			MaxBody: int(c.MaxBody), SessionIdle: time.Duration(c.SessionIdle), Rate: coapRate(c.Rate), Burst: float64(2 * max(c.Rate, 1)),
		}, g.broker, g.log, g.reg)
		if err != nil {
			return err
		}
		g.listeners = append(g.listeners, listener{"coap", c.Name, s})
	}
	for i := range g.cfg.Listeners.HTTP {
		c := &g.cfg.Listeners.HTTP[i]
		naming, err := namingOf(c.Mountpoint, c.ClientID, c.Username)
		if err != nil {
			return err
		}
		s, err := httppush.New(httppush.Config{
			Naming: naming,
			Name:   c.Name, Bind: string(c.Bind), Hosts: c.Hosts, Origins: c.Origins, MaxBody: int(c.MaxBody),
			MaxConnections: c.MaxConnections, SessionIdle: time.Duration(c.SessionIdle),
		}, g.broker, g.log.With("listener", c.Name), g.reg)
		if err != nil {
			return err
		}
		g.listeners = append(g.listeners, listener{"http", c.Name, s})
	}
	return nil
}

// namingOf reads what a listener makes of the names of its clients.
func namingOf(mountpoint, clientID, username string) (broker.Naming, error) {
	m, err := broker.ParseMountpoint(mountpoint)
	id, errID := broker.ParseName(clientID)
	user, errUser := broker.ParseName(username)
	return broker.Naming{Mountpoint: m, ClientID: id, Username: user}, errors.Join(err, errID, errUser)
}

// coapRate turns "0 = no limit" into the endpoint's own words.
func coapRate(perSecond int) float64 {
	if perSecond == 0 {
		return -1
	}
	return float64(perSecond)
}
