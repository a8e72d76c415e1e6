package config

import (
	"fmt"
	"strings"

	"gantry/broker"
)

// RewriteRule puts another topic or filter in the place of those that match, see broker.RewriteRule.
type RewriteRule struct {
	Action RewriteAction `yaml:"action"`
	Filter string        `yaml:"filter"`
	Regex  string        `yaml:"regex"`
	Topic  string        `yaml:"topic"`
}

// maxRules bounds what each message may have to be compared with.
const maxRules = 1000

func (r *RewriteRule) setDefaults() { r.Action = RewriteAll }

// Rule is the rule in the words of the broker.
func (r *RewriteRule) Rule() broker.RewriteRule {
	return broker.RewriteRule{Action: broker.RewriteAction(r.Action), Filter: r.Filter, Regex: r.Regex, Topic: r.Topic}
}

func (b *Broker) validateRewrite(add check) {
	if len(b.Rewrite) > maxRules {
		add("broker.rewrite", "%d rules are more than %d", len(b.Rewrite), maxRules)
	}
	for i := range b.Rewrite {
		path := fmt.Sprintf("broker.rewrite[%d]", i)
		r := b.Rewrite[i].Rule()
		if !required(add, path+".filter", r.Filter) || !required(add, path+".regex", r.Regex) || !required(add, path+".topic", r.Topic) {
			continue
		}
		r.Check(func(key string, err error) { add(join(path, key), "%v", err) })
	}
}

// AutoSubscription is a subscription that MQTT clients get without asking, see broker.AutoSubscription.
type AutoSubscription struct {
	Filter            string `yaml:"filter"`
	QoS               int    `yaml:"qos"`
	NoLocal           bool   `yaml:"no_local"`
	RetainAsPublished bool   `yaml:"retain_as_published"`
	RetainHandling    int    `yaml:"retain_handling"`
}

// Subscription is the same in the words of the broker.
func (a *AutoSubscription) Subscription() broker.AutoSubscription {
	return broker.AutoSubscription{
		Filter: a.Filter, QoS: broker.QoS(a.QoS), NoLocal: a.NoLocal, RetainAsPublished: a.RetainAsPublished, RetainHandling: uint8(a.RetainHandling),
	}
}

func (b *Broker) validateAutoSubscribe(add check) {
	if len(b.AutoSubscribe) > maxRules {
		add("broker.auto_subscribe", "%d entries are more than %d", len(b.AutoSubscribe), maxRules)
	}
	taken := make(map[string]int)
	for i := range b.AutoSubscribe {
		path := fmt.Sprintf("broker.auto_subscribe[%d]", i)
		a := &b.AutoSubscribe[i]
		inRange(add, path+".qos", a.QoS, 0, 2)
		inRange(add, path+".retain_handling", a.RetainHandling, 0, 2)
		if !required(add, path+".filter", a.Filter) {
			continue
		}
		if other, twice := taken[a.Filter]; twice {
			add(path+".filter", "%q is also that of broker.auto_subscribe[%d]", a.Filter, other)
		}
		taken[a.Filter] = i
		sub := a.Subscription()
		sub.QoS, sub.RetainHandling = 0, 0 // checked above, where they are not cut to a byte
		sub.Check(func(key string, err error) { add(join(path, key), "%v", err) })
	}
}

// validateNaming checks what a listener makes of the names of its clients. proven says that it knows them by their certificates.
func validateNaming(add check, path, mountpoint, clientID, username string, proven bool) {
	if _, err := broker.ParseMountpoint(mountpoint); err != nil {
		add(path+".mountpoint", "%v", err)
	}
	for _, n := range []struct{ key, template string }{{"client_id", clientID}, {"username", username}} {
		key := join(path, n.key)
		if _, err := broker.ParseName(n.template); err != nil {
			add(key, "%v", err)
		} else if strings.Contains(n.template, "${cn}") && !proven {
			add(key, "${cn} needs tls with identity: cn")
		}
	}
	if proven && username != "" {
		add(path+".username", "has no use with identity: cn: the certificate says who the user is")
	}
}
