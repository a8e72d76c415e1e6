package servers

import (
	"io/fs"
	"path/filepath"
)

// DependOnProduct lists the folders of the product, so that the go command
// knows that a cached result of a suite that builds it depends on them. It is
// called with the test's folder as the working directory, two below the root.
func DependOnProduct() error {
	for _, folder := range []string{"bridge", "broker", "cmd", "gateway", "persist", "protocols"} {
		err := filepath.WalkDir(filepath.Join("..", "..", folder), func(_ string, _ fs.DirEntry, err error) error { return err })
		if err != nil {
			return err
		}
	}
	return nil
}
