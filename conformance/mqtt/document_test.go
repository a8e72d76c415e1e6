//go:build unix

package mqtt

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDocument(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "conformance.md")
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(Document()), 0o644))
	}
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, Document(), string(text), "the page is old: go test ./conformance/mqtt -run TestDocument -update")
}

var number = regexp.MustCompile(`^(\d+(?:\.\d+)+)-(\d+)$`)

// lastOf is the number of the last statement of each section that has some, as
// the appendix of the standard lists them.
var lastOf = map[Version]map[string]int{
	MQTT5: {
		"1.5.4": 3, "1.5.5": 1, "1.5.7": 1, "2.1.3": 1, "2.2.1": 6, "2.2.2": 1, "3.1.0": 2, "3.1.2": 30, "3.1.3": 12, "3.1.4": 6, "3.2.0": 2,
		"3.2.2": 22, "3.3.1": 13, "3.3.2": 20, "3.3.4": 10, "3.4.2": 3, "3.5.2": 3, "3.6.1": 1, "3.6.2": 3, "3.7.2": 3, "3.8.1": 1, "3.8.3": 5,
		"3.8.4": 8, "3.9.2": 2, "3.9.3": 2, "3.10.1": 1, "3.10.3": 2, "3.10.4": 6, "3.11.2": 2, "3.11.3": 2, "3.12.4": 1, "3.14.0": 1,
		"3.14.1": 1, "3.14.2": 4, "3.14.4": 3, "3.15.1": 1, "3.15.2": 3, "4.1.0": 2, "4.2": 1, "4.3.1": 1, "4.3.2": 5, "4.3.3": 13, "4.4.0": 2,
		"4.5.0": 2, "4.6.0": 6, "4.7.0": 1, "4.7.1": 2, "4.7.2": 1, "4.7.3": 4, "4.8.2": 6, "4.9.0": 3, "4.12.0": 7, "4.12.1": 2, "4.13.1": 1,
		"4.13.2": 1, "6.0.0": 4,
	},
	MQTT311: {
		"1.5.3": 3, "2.2.2": 2, "2.3.1": 7, "3.1.0": 2, "3.1.2": 24, "3.1.3": 11, "3.1.4": 5, "3.2.0": 1, "3.2.2": 6, "3.3.1": 12, "3.3.2": 3,
		"3.3.4": 1, "3.3.5": 2, "3.6.1": 1, "3.8.1": 1, "3.8.3": 4, "3.8.4": 6, "3.9.3": 2, "3.10.1": 1, "3.10.3": 2, "3.10.4": 6, "3.12.4": 1,
		"3.14.1": 1, "3.14.4": 3, "4.1.0": 2, "4.3.1": 1, "4.3.2": 2, "4.3.3": 2, "4.4.0": 1, "4.5.0": 2, "4.6.0": 6, "4.7.1": 3, "4.7.2": 1,
		"4.7.3": 4, "4.8.0": 2, "6.0.0": 4, "7.0.0": 2, "7.1.1": 1, "7.1.2": 1,
	},
}

// TestStatements checks the tables: numbers in order and once, a check or a
// reason for each, and no record without its statement.
func TestStatements(t *testing.T) {
	for v, last := range lastOf {
		all := Statements(v)
		seen, sections := map[string]bool{}, map[string]int{}
		for i := range all {
			s := &all[i]
			require.Regexp(t, number, s.ID)
			require.False(t, seen[s.ID], "%s is there twice", s.ID)
			seen[s.ID] = true
			sections[number.FindStringSubmatch(s.ID)[1]]++
			require.NotEmpty(t, s.Text, s.ID)
			require.NotContains(t, s.Text, "|", s.ID)
			require.Equal(t, s.Checked(), s.Elsewhere == "", "%s needs a check or a reason", s.ID)
			require.True(t, s.Checked() || s.Who != Server || s.Elsewhere != onlyClient, s.ID)
			if i > 0 {
				require.Negative(t, slices.Compare(parts(all[i-1].ID), parts(s.ID)), "%s is not behind %s", s.ID, all[i-1].ID)
			}
		}
		if v == MQTT5 {
			sections["2.2.1"]++ // this section has no statement 1
		}
		require.Equal(t, last, sections, "MQTT %s", v)
		for b, versions := range recorded {
			for id, verdict := range versions[v] {
				require.True(t, seen[id], "%s has a record for %s", b, id)
				require.NotEmpty(t, verdict.Detail, id)
			}
		}
	}
}

func parts(id string) (all []int) {
	for _, s := range strings.FieldsFunc(id, func(r rune) bool { return r == '.' || r == '-' }) {
		n, _ := strconv.Atoi(s)
		all = append(all, n)
	}
	return all
}

func TestPitfallNames(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range Pitfalls() {
		require.False(t, seen[p.Name], "%s is there twice", p.Name)
		seen[p.Name] = true
		require.NotEmpty(t, p.Text)
	}
	for _, transport := range Transports {
		clear(seen)
		for _, r := range Rules(transport) {
			require.False(t, seen[r.Name], "%s is there twice", r.Name)
			seen[r.Name] = true
			require.NotEmpty(t, r.Text)
		}
	}
}
