package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing wrong with a configuration.
type Problem struct {
	File string // path as it was given, or "environment"
	Line int    // 1 for the first line; 0 where there is none: a missing file, the environment, a value from a program
	Key  string // path such as bridges[0].queue.when_full, or the name of a variable; empty for the whole file
	Text string
}

// String returns the problem as one line: gantry.yaml:12: bridges[0].queue.when_full: ….
func (p Problem) String() string {
	var sb strings.Builder
	if p.File != "" {
		sb.WriteString(p.File)
		if p.Line > 0 {
			fmt.Fprintf(&sb, ":%d", p.Line)
		}
		sb.WriteString(": ")
	}
	if p.Key != "" {
		sb.WriteString(p.Key + ": ")
	}
	sb.WriteString(p.Text)
	return sb.String()
}

// Problems is the error of [Load] and [Config.Validate]: everything that is wrong, in the order of the file, the environment last. It is never empty.
type Problems []Problem

// Error returns one line per problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// asError sorts the problems and returns nil when there are none.
func (ps Problems) asError() error {
	if len(ps) == 0 {
		return nil
	}
	slices.SortStableFunc(ps, func(a, b Problem) int {
		if fromEnv := a.File == environment; fromEnv != (b.File == environment) {
			if fromEnv {
				return 1
			}
			return -1
		}
		return cmp.Compare(a.Line, b.Line)
	})
	return ps
}

// didYouMean returns "; did you mean …?" when one of names is close to s, else nothing.
func didYouMean(s string, names []string) string {
	best, distance := "", max(2, len(s)/3)+1
	for _, name := range names {
		if d := editDistance(strings.ToLower(s), strings.ToLower(name)); d < distance {
			best, distance = name, d
		}
	}
	if best == "" || distance >= len(best) {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", best)
}

// editDistance returns how many bytes must be inserted, deleted, replaced or swapped with their neighbour to turn a into b.
func editDistance(a, b string) int {
	before, last, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			replace := last[j-1]
			if a[i-1] != b[j-1] {
				replace++
			}
			cur[j] = min(replace, last[j]+1, cur[j-1]+1)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		before, last, cur = last, cur, before
	}
	return last[len(b)]
}
