//go:build !linux

package seglog

import "os"

func dataSync(f *os.File) error { return f.Sync() }
