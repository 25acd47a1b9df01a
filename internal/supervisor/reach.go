package supervisor

import (
	"os"
	"path/filepath"
	"strings"

	"banger"
	"banger/internal/vmm"
	"banger/internal/vmm/choice"
)

// Where the daemon is root, a VM's processes are those of a user who owns nothing but the
// VM's directories. What they read is opened for them, so it does not matter who may enter the
// directories above.

// openToAll gives every user the right to read those of our files that all VMs have, whatever the umask
// was when they were made: a VMM opens some of them once more by their descriptors.
func (s *Supervisor) openToAll(c vmm.Config) error {
	if !s.opts.Root {
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
		ours := strings.HasPrefix(path, filepath.Clean(s.opts.StateDir)+"/")
		if !ours || !info.Mode().IsRegular() || info.Mode()&0o444 == 0o444 {
			continue
		}
		if err := os.Chmod(path, info.Mode().Perm()|0o444); err != nil {
			return err
		}
	}
	return nil
}

// checkReach refuses a VMM that the VM's user cannot start. Into a jail root copies it.
func (s *Supervisor) checkReach(c choice.Chosen, jailed bool) error {
	if !s.opts.Root || jailed || c.Path == "" {
		return nil
	}
	for _, path := range append([]string{c.Path}, c.Reads...) {
		if err := vmm.CheckReach(path); err != nil {
			return banger.Errorf(banger.CodeUnavailable, "%s cannot be used: %w", c.Name, err)
		}
	}
	return nil
}
