package mqtt

import (
	"fmt"
	"slices"
	"strings"
)

// Document renders docs/conformance.md from the statements, the recorded
// verdicts and the pitfalls.
func Document() string {
	var b strings.Builder
	b.WriteString(`# Conformance to MQTT

This page is made by ` + "`go test ./conformance/mqtt -run TestDocument -update`" + ` from the tables in conformance/mqtt; a test fails when it is old.

The suite in conformance/mqtt sends packets byte by byte to a server and judges the answers. It has one check for each numbered
statement of MQTT 3.1.1 and MQTT 5.0 that a server can violate; the numbers are those of the OASIS standards, where their full text
stands. ` + "`make test`" + ` runs it against Gantry over each transport, and against mosquitto to check the suite itself: a verdict that is not
the one on this page fails a test. ` + "`make conformance TARGET=host:port`" + ` runs it against any server; tls://, ws://, wss:// and
quic:// addresses and unix:/path are targets too.

What the verdicts mean: **holds**; **deviates**: the server does something else; **not offered**: the server lacks the feature and says
so as the standard demands; **not judged**: this server gives no way to see it. Statements that bind only the client have a check where
the server must or may refuse a client that violates them.

`)
	transports(&b)
	for _, v := range []Version{MQTT5, MQTT311} {
		summary(&b, v)
	}
	for _, v := range []Version{MQTT5, MQTT311} {
		table(&b, v)
	}
	cases(&b)
	rules(&b)
	return b.String()
}

// transports tells where the statements were held.
func transports(b *strings.Builder) {
	checks := 0
	for _, v := range []Version{MQTT5, MQTT311} {
		all := Statements(v)
		for i := range all {
			if all[i].Checked() {
				checks++
			}
		}
	}
	fmt.Fprintf(b, "Gantry is held to all %d checks on each of these transports, with the same verdicts:\n\n| transport | held by |\n|---|---|\n", checks)
	for _, t := range Transports {
		fmt.Fprintf(b, "| %s | TestGantry/%s/VERSION/STATEMENT |\n", t.name(), t)
	}
	b.WriteString("\n")
}

// summary counts the verdicts of a version.
func summary(b *strings.Builder, v Version) {
	all := Statements(v)
	fmt.Fprintf(b, "MQTT %s: %d statements\n\n| | holds | deviates | not offered | not judged | without check |\n|---|---|---|---|---|---|\n", v, len(all))
	for _, broker := range []Broker{Gantry, Mosquitto} {
		var n [4]int
		without := 0
		for i := range all {
			if !all[i].Checked() {
				without++
				continue
			}
			n[Recorded(broker, &all[i]).Result]++
		}
		fmt.Fprintf(b, "| %s | %d | %d | %d | %d | %d |\n", broker, n[Holds], n[Deviates], n[NotOffered], n[NotJudged], without)
	}
	b.WriteString("\n")
}

func table(b *strings.Builder, v Version) {
	fmt.Fprintf(b, "## MQTT %s\n\n| statement | binds | demands | check | %s | %s |\n|---|---|---|---|---|---|\n", v, Gantry, Mosquitto)
	all := Statements(v)
	for i := range all {
		s := &all[i]
		if !s.Checked() {
			fmt.Fprintf(b, "| MQTT-%s | %s | %s | %s | | |\n", s.ID, s.Who, s.Text, s.Elsewhere)
			continue
		}
		fmt.Fprintf(b, "| MQTT-%s | %s | %s | yes | %s | %s |\n", s.ID, s.Who, s.Text, cell(Recorded(Gantry, s)), cell(Recorded(Mosquitto, s)))
	}
	b.WriteString("\n")
}

func cell(v Verdict) string {
	if v.Detail == "" {
		return v.Result.String()
	}
	return v.Result.String() + ": " + v.Detail
}

func cases(b *strings.Builder) {
	b.WriteString("## Cases that other brokers get wrong\n\nThey are not one numbered statement, or demand more than theirs: the right reason code, for example. Gantry passes all of them.\n\n| case | held by |\n|---|---|\n")
	for _, p := range pitfalls {
		fmt.Fprintf(b, "| %s | TestPitfalls/%s |\n", p.Text, p.Name)
	}
}

func rules(b *strings.Builder) {
	b.WriteString("\n## What the transports demand\n\nRFC 6455 and TLS, and what a server that browsers can reach must refuse. Gantry passes all of them.\n\n| rule | held by |\n|---|---|\n")
	for _, r := range slices.Concat(webSocketRules, tlsRules) {
		var by []string
		for _, t := range r.Over {
			by = append(by, fmt.Sprintf("TestRules/%s/%s", t, r.Name))
		}
		fmt.Fprintf(b, "| %s | %s |\n", r.Text, strings.Join(by, ", "))
	}
}
