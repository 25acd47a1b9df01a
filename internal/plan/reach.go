package plan

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"banger"
	"banger/internal/shim"
	"banger/internal/vmm"
	"banger/internal/vmm/choice"
)

// If the daemon is root, a VM's processes belong to a user who owns only the VM's directories. The daemon opens the
// files that they read, so the modes of the directories above do not matter.

// openToAll gives every user the right to read our files that all VMs share, whatever the umask was when they were
// made. A VMM opens some of them again by their descriptors.
func (p Planner) openToAll(c vmm.Config) error {
	if !p.Root {
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
		ours := strings.HasPrefix(path, filepath.Clean(p.State)+"/")
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
func (p Planner) checkReach(c choice.Chosen, jailed bool) error {
	if !p.Root || jailed || c.Path == "" {
		return nil
	}
	for _, path := range append([]string{c.Path}, c.Reads...) {
		if err := vmm.CheckReach(path); err != nil {
			return banger.Errorf(banger.CodeUnavailable, "%s cannot be used: %w", c.Name, err)
		}
	}
	return nil
}

// jail returns the options of a VM's driver, and the jail for its VMM. The jail is nil if the daemon is not root or
// has no jailer; the VMM is then confined in another way.
func (p Planner) jail(ctx context.Context, c choice.Chosen, vm string,
	id shim.Identity) (map[string]string, *shim.Jail) {
	if !p.Root || c.Jailer == nil {
		return c.Options, nil
	}
	more, err := c.Jailer(ctx, c.Path, c.Version, string(p.Dirs.Jails()), id.UID, id.GID, p.Groups.Path(vm))
	if err != nil {
		p.Log.Warn("the VMM has no jail", "vm", vm, "err", err)
		return c.Options, nil
	}
	options := map[string]string{}
	maps.Copy(options, c.Options)
	maps.Copy(options, more)
	return options, &shim.Jail{UID: int(id.UID), GID: int(id.GID), Dir: string(p.Dirs.Jails())}
}
