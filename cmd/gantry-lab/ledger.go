package main

import (
	"fmt"
	"sync"
)

// ledger knows what each device got acknowledged and what came out of Kafka.
type ledger struct {
	mu      sync.Mutex // covers everything below, devices included
	devices map[string]*device
	order   []*device
}

func newLedger() *ledger { return &ledger{devices: make(map[string]*device)} }

// device returns the entry of a simulated device.
func (l *ledger) device(protocol, id string) *device {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := &device{ledger: l, protocol: protocol, id: id}
	l.devices[id] = d
	l.order = append(l.order, d)
	return d
}

// Bits of one message of a device.
const (
	acknowledged = 1 << iota
	delivered
)

// sent notes that message n leaves the device.
func (d *device) sent(n int) {
	d.ledger.mu.Lock()
	defer d.ledger.mu.Unlock()
	for len(d.messages) <= n {
		d.messages = append(d.messages, 0)
	}
	d.tried++
}

// acked notes that the gateway took the responsibility for message n.
func (d *device) acked(n int) {
	d.ledger.mu.Lock()
	defer d.ledger.mu.Unlock()
	d.messages[n] |= acknowledged
}

// arrived notes that message n of a device came out of Kafka.
func (l *ledger) arrived(id string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.devices[id]
	if d == nil || n < 0 || n >= len(d.messages) {
		return // from an earlier run with the same --data
	}
	if d.messages[n]&delivered != 0 {
		d.duplicates++
	}
	if n < d.newest {
		d.disordered++
	}
	d.newest = max(d.newest, n)
	d.messages[n] |= delivered
}

// totals are the sums over some devices.
type totals struct {
	devices, sent, acknowledged, delivered, duplicates, disordered, lost int
}

func (t *totals) add(d *device) {
	t.devices++
	t.sent += d.tried
	t.duplicates += d.duplicates
	t.disordered += d.disordered
	for _, m := range d.messages {
		switch {
		case m&acknowledged != 0 && m&delivered == 0:
			t.lost++
		case m&delivered != 0:
			t.delivered++
		}
		if m&acknowledged != 0 {
			t.acknowledged++
		}
	}
}

func (l *ledger) byProtocol(name string) (t totals) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range l.order {
		if d.protocol == name {
			t.add(d)
		}
	}
	return t
}

// verdict is the last line of the laboratory.
type verdict totals

func (l *ledger) verdict() verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	var t totals
	for _, d := range l.order {
		t.add(d)
	}
	return verdict(t)
}

func (v verdict) String() string {
	line := fmt.Sprintf("acknowledged %d  delivered %d  duplicates %d  lost %d", v.acknowledged, v.delivered, v.duplicates, v.lost)
	if v.disordered > 0 {
		line += fmt.Sprintf("  out of order %d", v.disordered)
	}
	return line
}
