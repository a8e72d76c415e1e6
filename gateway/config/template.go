package config

import "gantry/bridge"

// template checks a value with ${variables}. The error quotes the value.
func template(add check, path, text string) {
	if _, err := bridge.ParseTemplate(text); err != nil {
		add(path, "%v", err)
	}
}
