package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

const (
	environment = "environment"
	envPrefix   = "GANTRY_"
)

// testVariable is no setting: it tells the tests of this project what must be installed, and a gateway that a test starts inherits it.
const testVariable = "GANTRY_REQUIRE_REAL"

// variable is a setting that the environment can override: a scalar that is in no list.
type variable struct {
	name  string // GANTRY_STORE_TYPE
	path  string // store.type
	value reflect.Value
}

// variables returns the settings of c that the environment can override, in the order of the file.
func variables(c *Config) []variable {
	var vars []variable
	var walk func(v reflect.Value, path string)
	walk = func(v reflect.Value, path string) {
		switch {
		case v.Kind() == reflect.Struct && !isText(v):
			for i, name := range fieldsOf(v.Type()).names {
				walk(v.Field(i), join(path, name))
			}
		case v.Kind() == reflect.Slice: // no entry of a list has a variable
		default:
			name := envPrefix + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
			vars = append(vars, variable{name, path, v})
		}
	}
	walk(reflect.ValueOf(c).Elem(), "")
	return vars
}

// overlay sets what environ (in the form of os.Environ) says about c. A GANTRY_ variable that names no setting is a problem: it is a misspelt one.
func (d *decoder) overlay(c *Config, environ []string) {
	vars := variables(c)
	names := make([]string, len(vars))
	for i, v := range vars {
		names[i] = v.name
	}
	for _, entry := range environ {
		name, text, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, envPrefix) || name == testVariable {
			continue
		}
		i := slices.Index(names, name)
		if i < 0 {
			d.addEnv(name, unknownVariable(name, names))
			continue
		}
		d.origins[vars[i].path] = origin{file: environment, name: name}
		if err := setText(vars[i].value, text); err != nil {
			d.addEnv(name, err.Error())
		}
	}
}

func (d *decoder) addEnv(name, text string) {
	d.problems = append(d.problems, Problem{File: environment, Key: name, Text: text})
}

func unknownVariable(name string, names []string) string {
	if plannedVariables.MatchString(name) {
		return errUnavailable.Error()
	}
	return fmt.Sprintf("no setting has this variable%s", didYouMean(name, names))
}
