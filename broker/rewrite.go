package broker

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// RewriteAction says to which names a rule applies.
type RewriteAction string

// The actions. RewriteSubscribe stands for the filters of SUBSCRIBE and
// UNSUBSCRIBE and for the topics whose retained value is read.
const (
	RewriteAll       RewriteAction = "all"
	RewritePublish   RewriteAction = "publish"
	RewriteSubscribe RewriteAction = "subscribe"
)

// RewriteActions lists them, the default first.
func RewriteActions() []RewriteAction {
	return []RewriteAction{RewriteAll, RewritePublish, RewriteSubscribe}
}

// RewriteRule puts another topic or filter in the place of those that match
// Filter and Regex. As in EMQX, of the rules whose Filter matches a name the
// last one of the list decides alone: if its Regex does not match, the name
// stays as it is. Rules are applied once, behind the mountpoint and before
// authorisation.
//
// A filter that a client subscribes to matches Filter level by level, its own
// wildcards taken as words; of a shared subscription only the filter behind
// the share name counts.
type RewriteRule struct {
	Action RewriteAction
	Filter string // which names; not one of a name space such as $SYS
	Regex  string // RE2; it need not match the whole name
	// Topic is the whole new name: $1 to $9 and beyond are the groups of Regex,
	// $0 all that it matched, ${clientid} and ${username} the client. A client
	// whose name would change the levels of the topic is refused.
	Topic string
}

// Check reports each problem of the rule with the key that has it: action,
// filter, regex or topic.
func (r *RewriteRule) Check(report func(key string, err error)) {
	_ = r.compile(report)
}

func (r *RewriteRule) compile(report func(key string, err error)) *rewriteRule {
	if !slices.Contains(RewriteActions(), r.Action) {
		report("action", fmt.Errorf("%q is not one of %v", r.Action, RewriteActions()))
	}
	if err := ValidFilter(r.Filter); err != nil {
		report("filter", err)
	} else if reserved(r.Filter) {
		report("filter", fmt.Errorf("%q: names of this kind are not rewritten", r.Filter))
	}
	regex, err := regexp.Compile(r.Regex)
	switch {
	case err != nil:
		report("regex", err)
	case r.Regex == "":
		report("regex", errors.New("is missing"))
	}
	dest, err := parseDestination(r.Topic)
	if err != nil {
		report("topic", err)
		return nil
	}
	if regex != nil {
		dest.checkGroups(regex.NumSubexp(), report)
	}
	if r.Action != RewriteSubscribe && strings.ContainsAny(dest.sample(), "+#") {
		report("topic", errTopicWild)
	}
	return &rewriteRule{filter: r.Filter, regex: regex, dest: dest}
}

// parseDestination reads a template with references to groups.
func parseDestination(s string) (*Template, error) {
	t, err := ParseTemplate(s, "clientid", "username")
	if err != nil {
		return nil, err
	}
	var parts []templatePart
	for _, p := range t.parts {
		if p.kind != isText {
			parts = append(parts, p)
			continue
		}
		parts = append(parts, splitGroups(p.text)...)
	}
	dest := &Template{source: s, parts: parts}
	sample := dest.sample()
	if err := ValidFilter(sample); err != nil {
		return nil, err
	}
	if reserved(sample) {
		return nil, fmt.Errorf("%q: clients cannot be led there", s)
	}
	return dest, nil
}

// splitGroups cuts text at its references $N. A $ without digits is a $.
func splitGroups(text string) (parts []templatePart) {
	from := 0
	for i := 0; i < len(text); i++ {
		end := i + 1
		for end < len(text) && '0' <= text[end] && text[end] <= '9' {
			end++
		}
		if text[i] != '$' || end == i+1 {
			continue
		}
		if from < i {
			parts = append(parts, templatePart{text: text[from:i]})
		}
		n, err := strconv.Atoi(text[i+1 : end])
		if err != nil {
			n = -1 // more than any expression has
		}
		parts = append(parts, templatePart{kind: isGroup, group: n, text: text[i:end]})
		from, i = end, end-1
	}
	if from < len(text) {
		parts = append(parts, templatePart{text: text[from:]})
	}
	return parts
}

func (t *Template) checkGroups(groups int, report func(key string, err error)) {
	for i := range t.parts {
		if p := &t.parts[i]; p.kind == isGroup && (p.group < 0 || p.group > groups) {
			report("topic", fmt.Errorf("%s: the regular expression has %d groups", p.text, groups))
		}
	}
}

// rewriter holds the compiled rules, those that decide first in front.
type rewriter struct{ publish, subscribe []rewriteRule }

type rewriteRule struct {
	filter string
	regex  *regexp.Regexp
	dest   *Template
}

// newRewriter compiles the rules; nil when there are none.
func newRewriter(rules []RewriteRule) (*rewriter, error) {
	if len(rules) == 0 {
		return nil, nil
	}
	var problems []error
	rw := &rewriter{}
	for i := range rules {
		r := rules[i].compile(func(key string, err error) {
			problems = append(problems, fmt.Errorf("rewrite rule %d: %s: %w", i, key, err))
		})
		if r == nil {
			continue
		}
		if rules[i].Action != RewriteSubscribe {
			rw.publish = append(rw.publish, *r)
		}
		if rules[i].Action != RewritePublish {
			rw.subscribe = append(rw.subscribe, *r)
		}
	}
	slices.Reverse(rw.publish)
	slices.Reverse(rw.subscribe)
	return rw, errors.Join(problems...)
}

// rewrite applies the rule that decides about a name. ok is false when there
// may be no such name. It allocates only for a new one.
func rewrite(rules []rewriteRule, name string, v *clientVars) (to string, ok bool) {
	for i := range rules {
		r := &rules[i]
		if !MatchFilter(r.filter, name) {
			continue
		}
		groups := r.regex.FindStringSubmatchIndex(name)
		if groups == nil {
			return name, true
		}
		return r.fill(name, groups, v)
	}
	return name, true
}

// fill writes the new name.
func (r *rewriteRule) fill(name string, groups []int, v *clientVars) (to string, ok bool) {
	var b strings.Builder
	for i := range r.dest.parts {
		switch p := &r.dest.parts[i]; p.kind {
		case isText:
			b.WriteString(p.text)
		case isGroup:
			if from := groups[2*p.group]; from >= 0 { // it may have no part in the match
				b.WriteString(name[from:groups[2*p.group+1]])
			}
		case isVariable:
			value := v.value(p.name)
			if oneLevel(value) != nil {
				return "", false
			}
			b.WriteString(value)
		}
	}
	return b.String(), !reserved(b.String())
}
