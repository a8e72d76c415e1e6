//go:build !linux

package kafka

import "os"

func datasync(f *os.File) error { return f.Sync() }
