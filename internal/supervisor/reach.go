package supervisor

import (
	"os"
	"path/filepath"
	"strings"

	"banger"
	"banger/internal/vmm"
	"banger/internal/vmm/choice"
)

// If the daemon is root, a VM's processes belong to a user who owns only the VM's directories. The daemon opens the
// files that they read, so the modes of the directories above do not matter.

// openToAll gives every user the right to read our files that all VMs share, whatever the umask was when they were
// made. A VMM opens some of them again by their descriptors.
func (o Options) openToAll(c vmm.Config) error {
	if !o.Root {
		return nil
	}
	paths := []string{c.Kernel, c.Initrd}
	for _, d := range c.Drives {
		if d.ReadOnly {
			paths = append(paths, d.Path)
		}
	}
	for _, path := range paths {
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		ours := strings.HasPrefix(path, filepath.Clean(o.StateDir)+"/")
		if !ours || !info.Mode().IsRegular() || info.Mode()&0o444 == 0o444 {
			continue
		}
		if err := os.Chmod(path, info.Mode().Perm()|0o444); err != nil {
			return err
		}
	}
	return nil
}

// checkReach returns an error if the VM's user cannot start the VMM. It is not needed for a jail, into which root
// copies the VMM.
func (o Options) checkReach(c choice.Chosen, jailed bool) error {
	if !o.Root || jailed || c.Path == "" {
		return nil
	}
	for _, path := range append([]string{c.Path}, c.Reads...) {
		if err := vmm.CheckReach(path); err != nil {
			return banger.Errorf(banger.CodeUnavailable, "%s cannot be used: %w", c.Name, err)
		}
	}
	return nil
}
