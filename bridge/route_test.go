package bridge

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"gantry/broker"
)

func template(t testing.TB, s string) *Template {
	t.Helper()
	tpl, err := ParseTemplate(s)
	require.NoError(t, err)
	return tpl
}

func TestRouteValidate(t *testing.T) {
	good := Route{Filter: "plant/#", Topic: template(t, "plant.${topic[1]}"), Format: Raw, QoS: 1}
	require.NoError(t, good.Validate())

	bad := Route{Filter: "a/#/b", Format: "xml", QoS: 3, Headers: []Header{{}}}
	err := bad.Validate()
	for _, problem := range []string{"filter", "topic is missing", "header has no name", `format "xml"`, "qos 3"} {
		require.ErrorContains(t, err, problem)
	}
	shared := Route{Filter: "$share/g/a", Topic: template(t, "x")}
	require.ErrorContains(t, shared.Validate(), "share")
	many := Route{Filter: "a", Topic: template(t, "x"), Headers: make([]Header, 128)}
	require.ErrorContains(t, many.Validate(), "128 headers")
}

func TestMatcherAgreesWithTheBroker(t *testing.T) {
	level := rapid.SampledFrom([]string{"a", "b", "", "$x"})
	filterLevel := rapid.SampledFrom([]string{"a", "b", "", "+", "$x"})
	rapid.Check(t, func(t *rapid.T) {
		filters := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string {
			levels := rapid.SliceOfN(filterLevel, 1, 4).Draw(t, "levels")
			if rapid.Bool().Draw(t, "hash") {
				levels = append(levels, "#")
			}
			return strings.Join(levels, "/")
		}), 0, 8).Draw(t, "filters")
		topic := strings.Join(rapid.SliceOfN(level, 1, 5).Draw(t, "topic"), "/")
		var want []int
		for i, filter := range filters {
			if broker.MatchFilter(filter, topic) {
				want = append(want, i)
			}
		}
		require.Equal(t, want, newMatcher(filters).match(nil, topic), "%q in %q", topic, filters)
	})
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{1, 10, 1000} {
		var filters []string
		for i := range n {
			filters = append(filters, fmt.Sprintf("plant/line-%d/+/temp/#", i))
		}
		m := newMatcher(filters)
		topic := fmt.Sprintf("plant/line-%d/press/temp/1", n-1)
		b.Run(fmt.Sprintf("routes=%d", n), func(b *testing.B) {
			var dst [8]int
			b.ReportAllocs()
			for b.Loop() {
				if len(m.match(dst[:0], topic)) != 1 {
					b.Fatal("no match")
				}
			}
		})
	}
}
