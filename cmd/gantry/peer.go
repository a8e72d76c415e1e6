package main

import (
	"net"
	"strconv"
	"time"

	"gantry/cmd/gantry/internal/mqtt"
)

// peer are the flags that say how to connect to an MQTT server. Their letters are those of mosquitto_pub and mosquitto_sub.
type peer struct {
	Host      string        `short:"h" default:"127.0.0.1" help:"Server to connect to."`
	Port      uint16        `short:"p" default:"1883" help:"Its port."`
	Version   string        `short:"V" name:"protocol-version" enum:"5,311" default:"5" help:"MQTT version: 5 or 311."`
	ClientID  string        `short:"i" name:"id" placeholder:"ID" help:"Client id. Default: one that the server assigns."`
	Username  string        `short:"u" placeholder:"NAME" help:"User name."`
	Password  string        `short:"P" placeholder:"PW" help:"Password. Others on this machine can see it while the command runs."`
	KeepAlive time.Duration `short:"k" name:"keepalive" default:"60s" help:"Keep alive."`
	QoS       byte          `short:"q" name:"qos" enum:"0,1,2" default:"0" help:"Quality of service: 0, 1 or 2."`
}

func (p *peer) options() mqtt.Options {
	return mqtt.Options{
		Addr: net.JoinHostPort(p.Host, strconv.Itoa(int(p.Port))), Version: p.Version,
		ClientID: p.ClientID, Username: p.Username, Password: p.Password, KeepAlive: p.KeepAlive,
	}
}
