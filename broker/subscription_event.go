package broker

import (
	"slices"
	"time"
)

// SubscriptionEvent says that a client subscribed or unsubscribed.
type SubscriptionEvent struct {
	Subscribed bool
	At         time.Time
	ClientID   string
	Username   string
	Protocol   string
	// Subscription is what the client asked for, in its own words; of one that
	// ended, only the filter.
	Subscription Subscription
	New          bool // the client did not hold the filter before
}

func nothing() {}

// tellSubscribed returns what reports the subscriptions that were granted,
// once the work is done.
func (s *Session) tellSubscribed(subs []Subscription, w *subscribing) func() {
	watch := s.broker.cfg.OnSubscription
	if watch == nil {
		return nothing
	}
	subs = slices.Clone(subs)
	return func() {
		for i := range subs {
			if !w.reasons[i].OK() {
				continue
			}
			e := s.subscriptionEvent(true)
			e.Subscription = subs[i]
			filter, _ := s.named(subs[i].Filter)
			e.New = slices.ContainsFunc(w.added, func(sub *subscription) bool { return sub.Filter == filter })
			watch(e)
		}
	}
}

// tellUnsubscribed is the same for Unsubscribe.
func (s *Session) tellUnsubscribed(filters []string, reasons []Reason) func() {
	watch := s.broker.cfg.OnSubscription
	if watch == nil {
		return nothing
	}
	filters = slices.Clone(filters)
	return func() {
		for i, f := range filters {
			if reasons[i] == Success {
				e := s.subscriptionEvent(false)
				e.Subscription.Filter = f
				watch(e)
			}
		}
	}
}

func (s *Session) subscriptionEvent(subscribed bool) SubscriptionEvent {
	return SubscriptionEvent{Subscribed: subscribed, At: time.Now(), ClientID: s.clientID, Username: s.username, Protocol: s.protocol}
}
