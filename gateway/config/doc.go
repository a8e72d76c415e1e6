// Package config is the shape of the configuration file and everything that turns it into a checked value: [Default], [Load] and [Config.Validate].
//
// [Load] works in one direction: defaults, then the YAML file, then the environment, then the checks that need the whole. It reports every problem at
// once, each with its line and key, and never guesses: an unknown key, a duplicate key, a value of the wrong kind or an unknown GANTRY_ variable is an
// error. Settings of parts that this version does not have are refused as such, they are never ignored.
//
// The package holds only the shape of the file; what a setting does is documented in configs/gantry.yaml and at the part that obeys it.
package config
