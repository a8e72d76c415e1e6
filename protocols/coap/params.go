package coap

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"gantry/broker"
)

// params are the Uri-Query parameters of a request below /ps, under their
// EMQX names. Names that are not known are ignored.
type params struct {
	clientID    string
	credentials broker.Credentials
	qos         int // -1 = by the type of the request: NON 0, CON 1
	retain      bool
	expiry      time.Duration // 0 = none

	noLocal, retainAsPublished bool
	retainHandling             uint8
}

var (
	errQoS            = errors.New("qos must be 0, 1 or 2")
	errFlag           = errors.New("a flag must be true, false, 1 or 0")
	errExpiry         = errors.New("expiry must be seconds, 1 to 4294967295")
	errRetainHandling = errors.New("rh must be 0, 1 or 2")
)

func parseParams(query [][]byte) (p params, err error) {
	p.qos = -1
	for _, q := range query {
		name, value, _ := strings.Cut(string(q), "=")
		if err := p.set(name, percentDecode(value)); err != nil {
			return p, err
		}
	}
	return p, nil
}

func (p *params) set(name, value string) (err error) {
	switch name {
	case "qos", "q":
		if len(value) != 1 || value[0] < '0' || value[0] > '2' {
			return errQoS
		}
		p.qos = int(value[0] - '0')
	case "retain", "r":
		p.retain, err = flag(value)
	case "expiry", "ex":
		seconds, err := strconv.ParseUint(value, 10, 32)
		if err != nil || seconds == 0 {
			return errExpiry
		}
		p.expiry = time.Duration(seconds) * time.Second
	case "clientid", "c":
		p.clientID = value
	case "username", "u":
		p.credentials.Username, p.credentials.HasUsername = value, true
	case "password", "p":
		p.credentials.Password, p.credentials.HasPassword = []byte(value), true
	case "nl":
		p.noLocal, err = flag(value)
	case "rap":
		p.retainAsPublished, err = flag(value)
	case "rh":
		if len(value) != 1 || value[0] < '0' || value[0] > '2' {
			return errRetainHandling
		}
		p.retainHandling = value[0] - '0'
	}
	return err
}

// flag reads a boolean; a bare name counts as true.
func flag(value string) (bool, error) {
	switch value {
	case "true", "1", "":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return false, errFlag
}

// level is the QoS of a request: as asked, else by its type.
func (p *params) level(con bool) broker.QoS {
	switch {
	case p.qos >= 0:
		return broker.QoS(p.qos)
	case con:
		return 1
	}
	return 0
}
