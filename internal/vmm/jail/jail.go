// Package jail knows where the jails of VMMs are: the directories that are the root directories of
// their processes. It must not know which VMM has a jail, nor how a jail is made.
package jail

import (
	"errors"
	"os"
	"path/filepath"

	"banger/internal/untrusted"
)

// Base is the directory that contains all jails. A jail is BASE/PROGRAM/ID/root, as Firecracker's
// jailer makes it (docs/jailer.md of Firecracker).
type Base string

// Root returns the root directory of a VM whose VMM is the given program.
func (b Base) Root(program, id string) string {
	return filepath.Join(string(b), filepath.Base(program), id, "root")
}

// Roots returns the root directories of a VM for all programs. There may be none.
func (b Base) Roots(id string) []string {
	dirs, _ := filepath.Glob(filepath.Join(string(b), "*", id, "root"))
	return dirs
}

// IDs returns the ids of the VMs that have a jail.
func (b Base) IDs() (ids []string) {
	dirs, _ := filepath.Glob(filepath.Join(string(b), "*", "*"))
	for _, dir := range dirs {
		ids = append(ids, filepath.Base(dir))
	}
	return ids
}

// Remove removes the jails of a VM for all programs, and the directories above that become empty.
func (b Base) Remove(id string) (err error) {
	dirs, _ := filepath.Glob(filepath.Join(string(b), "*", id))
	for _, dir := range dirs {
		err = errors.Join(err, untrusted.RemoveAll(dir))
		os.Remove(filepath.Dir(dir))
		os.Remove(string(b))
	}
	return err
}
