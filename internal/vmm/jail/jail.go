// Package jail knows where the jails of VMMs are: the directories that are their roots. It must not
// know which VMM has one, nor how one is made.
package jail

import (
	"errors"
	"os"
	"path/filepath"

	"banger/internal/untrusted"
)

// Base is the directory below which all jails are: BASE/PROGRAM/ID/root, as Firecracker's jailer makes them
// (docs/jailer.md of Firecracker).
type Base string

// Root returns the root of a VM whose VMM is the given program.
func (b Base) Root(program, id string) string {
	return filepath.Join(string(b), filepath.Base(program), id, "root")
}

// Roots returns the roots of a VM, whatever its VMM is called. There may be none.
func (b Base) Roots(id string) []string {
	dirs, _ := filepath.Glob(filepath.Join(string(b), "*", id, "root"))
	return dirs
}

// IDs returns the VMs that have a jail.
func (b Base) IDs() (ids []string) {
	dirs, _ := filepath.Glob(filepath.Join(string(b), "*", "*"))
	for _, dir := range dirs {
		ids = append(ids, filepath.Base(dir))
	}
	return ids
}

// Remove removes the jail of a VM, whatever its VMM is called, and the directories above that hold no other one.
func (b Base) Remove(id string) (err error) {
	dirs, _ := filepath.Glob(filepath.Join(string(b), "*", id))
	for _, dir := range dirs {
		err = errors.Join(err, untrusted.RemoveAll(dir))
		os.Remove(filepath.Dir(dir))
		os.Remove(string(b))
	}
	return err
}
