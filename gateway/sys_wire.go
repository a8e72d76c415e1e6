package gateway

import "github.com/prometheus/client_golang/prometheus"

// The metrics of the MQTT listeners that are summed.
const (
	packetsIn  = "gantry_mqtt_packets_received_total"
	packetsOut = "gantry_mqtt_packets_sent_total"
	bytesIn    = "gantry_mqtt_received_bytes_total"
	bytesOut   = "gantry_mqtt_sent_bytes_total"
	sockets    = "gantry_mqtt_sockets_total"
)

// wireCounter sums what the MQTT listeners count. A listener that is closed
// takes its metrics with it; what it counted stays in the sums.
type wireCounter struct {
	seen, gone map[wireMetric]float64 // the last values, and those of listeners that were closed
	sums       map[wireMetric]float64 // without listener; by packet type, and without
}

type wireMetric struct{ name, packet, listener string }

// get returns a sum; packet is a type in the spelling of the standard, "" for
// all.
func (w *wireCounter) get(name, packet string) float64 {
	return w.sums[wireMetric{name: name, packet: packet}]
}

// gather reads the metrics. When they cannot be read, the sums stay.
func (w *wireCounter) gather(from prometheus.Gatherer) {
	now, err := readWire(from)
	if err != nil {
		return
	}
	if w.gone == nil {
		w.gone = make(map[wireMetric]float64)
	}
	for key, value := range w.seen {
		if now[key] < value { // its listener was closed, and perhaps opened again
			w.gone[key] += value
		}
	}
	w.seen, w.sums = now, make(map[wireMetric]float64)
	for _, values := range []map[wireMetric]float64{w.seen, w.gone} {
		for key, value := range values {
			w.sums[wireMetric{name: key.name}] += value
			if key.packet != "" {
				w.sums[wireMetric{name: key.name, packet: key.packet}] += value
			}
		}
	}
}

func readWire(from prometheus.Gatherer) (map[wireMetric]float64, error) {
	families, err := from.Gather()
	if err != nil {
		return nil, err
	}
	now := make(map[wireMetric]float64)
	for _, f := range families {
		switch f.GetName() {
		case packetsIn, packetsOut, bytesIn, bytesOut, sockets:
		default:
			continue
		}
		for _, m := range f.GetMetric() {
			key := wireMetric{name: f.GetName()}
			for _, l := range m.GetLabel() {
				switch l.GetName() {
				case "type":
					key.packet = l.GetValue()
				case "listener":
					key.listener = l.GetValue()
				}
			}
			now[key] = m.GetCounter().GetValue()
		}
	}
	return now, nil
}
