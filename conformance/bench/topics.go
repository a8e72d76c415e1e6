package main

import "fmt"

// topics are those that the publishers of a pair rotate through.
func (l *load) topics(pair int) []string {
	if l.filters == 0 {
		return []string{fmt.Sprintf("bench/%d", pair)}
	}
	topics := make([]string, l.filters)
	for n := range topics {
		topics[n] = fmt.Sprintf("site/%d/line/%d/speed", pair, n)
	}
	return topics
}

func (l *load) subscribe(c *mqttConn, pair int) error {
	if l.filters == 0 {
		return c.subscribe(l.qos, l.topics(pair)...)
	}
	filters := make([]string, l.filters)
	for n := range filters {
		filters[n] = fmt.Sprintf("site/%d/line/%d/+", pair, n)
	}
	return c.subscribe(l.qos, filters...)
}
