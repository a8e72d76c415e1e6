package config

import "regexp"

// planned are the keys of the file format whose part this version does not have, as patterns of key paths. They are refused by name, so that
// nobody believes that, say, a certificate is in use.
var planned = regexp.MustCompile(`^(` +
	`listeners\.coap\[\d+\]\.(tls|psk_file)|` +
	`listeners\.http\[\d+\]\.tls|` +
	`auth\.chain|` +
	`authorization|` +
	`store\.redis|` +
	`bridges\[\d+\]\.(url|out|in)` +
	`)$`)

// plannedVariables are the environment variables of scalars below those keys.
var plannedVariables = regexp.MustCompile(`^GANTRY_(AUTHORIZATION_|STORE_REDIS_)`)

// unavailable reports whether a key that no struct has is part of the file format all the same.
func unavailable(path string) bool { return planned.MatchString(path) }
