package broker

import (
	"errors"
	"fmt"
	"strings"
)

// AutoSubscription is a subscription that the broker makes for each MQTT
// client at its connect, before anything is delivered, as if the client had
// sent it: mountpoint, rewrite rules and authorisation apply. A resumed session
// that has the filter keeps the subscription that it has.
type AutoSubscription struct {
	// Filter may have ${clientid}, ${username} and ${listener}. A client whose
	// name has no value, or one that would change the levels of the filter, does
	// not get the subscription.
	Filter            string
	QoS               QoS
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    uint8
}

// Check reports each problem with the key that has it: filter, qos, no_local
// or retain_handling.
func (a *AutoSubscription) Check(report func(key string, err error)) {
	_ = a.compile(report)
}

func (a *AutoSubscription) compile(report func(key string, err error)) *autoSubscription {
	if a.QoS > 2 {
		report("qos", fmt.Errorf("%d is not 0, 1 or 2", a.QoS))
	}
	if a.RetainHandling > 2 {
		report("retain_handling", fmt.Errorf("%d is not 0, 1 or 2", a.RetainHandling))
	}
	t, err := ParseTemplate(a.Filter, "clientid", "username", "listener")
	if err == nil {
		err = ValidFilter(t.sample())
	}
	if err != nil {
		report("filter", err)
		return nil
	}
	if a.NoLocal && IsShared(t.sample()) {
		report("no_local", errors.New("a shared subscription cannot have it")) // [MQTT-3.8.3-4]
	}
	return &autoSubscription{filter: t, options: Subscription{
		QoS: a.QoS, NoLocal: a.NoLocal, RetainAsPublished: a.RetainAsPublished, RetainHandling: a.RetainHandling,
	}}
}

// autoSubscription is a compiled one; its options have no filter.
type autoSubscription struct {
	filter  *Template
	options Subscription
}

func newAutoSubscriptions(list []AutoSubscription) ([]autoSubscription, error) {
	var out []autoSubscription
	var problems []error
	for i := range list {
		a := list[i].compile(func(key string, err error) {
			problems = append(problems, fmt.Errorf("automatic subscription %d: %s: %w", i, key, err))
		})
		if a != nil {
			out = append(out, *a)
		}
	}
	return out, errors.Join(problems...)
}

// of is the subscription for one client.
func (a *autoSubscription) of(v *clientVars) (Subscription, error) {
	sub := a.options
	var err error
	if sub.Filter, err = a.filter.expand(v, oneLevel); err != nil {
		return sub, err
	}
	if strings.HasPrefix(sub.Filter, "$") && !strings.HasPrefix(a.filter.sample(), "$") {
		return sub, errors.New("would begin with $")
	}
	return sub, nil
}

// autoSubscribe makes the automatic subscriptions that the session does not
// have. Nothing is delivered before they are durable.
func (s *Session) autoSubscribe() {
	if len(s.broker.automatic) == 0 || s.protocol != "mqtt" {
		return
	}
	v := clientVars{clientID: s.clientID, username: s.username, listener: s.listener}
	var subs []Subscription
	for i := range s.broker.automatic {
		sub, err := s.broker.automatic[i].of(&v)
		if err != nil {
			s.withoutAuto(s.broker.automatic[i].filter.source, err)
			continue
		}
		filter, r := s.named(sub.Filter)
		if r == Success && s.state.subscribed(filter) {
			continue
		}
		subs = append(subs, sub)
	}
	if len(subs) == 0 {
		return
	}
	s.Subscribe(subs, func(reasons []Reason, _ []QoS) {
		for i, r := range reasons {
			if !r.OK() && r != Closed {
				s.withoutAuto(subs[i].Filter, &Error{Reason: r})
			}
		}
	})
}

// withoutAuto notes that the client goes without an automatic subscription.
func (s *Session) withoutAuto(filter string, err error) {
	s.broker.stats.autoRefused.Add(1)
	s.broker.log.Debug("automatic subscription was not made", "client", s.clientID, "filter", filter, "err", err)
}

func (s *sessionState) subscribed(filter string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.subs[filter] != nil
}
