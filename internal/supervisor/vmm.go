package supervisor

import (
	"context"
	"maps"

	"banger/internal/shim"
	"banger/internal/vmm/choice"
)

// jail returns the options of a VM's driver, and the jail for its VMM. The jail is nil if the daemon is not root or
// has no jailer; the VMM is then confined in another way.
func (s *Supervisor) jail(ctx context.Context, c choice.Chosen, vm string,
	id shim.Identity) (map[string]string, *shim.Jail) {
	if !s.opts.Root || c.Jailer == nil {
		return c.Options, nil
	}
	more, err := c.Jailer(ctx, c.Path, c.Version, string(s.dirs.Jails()), id.UID, id.GID, s.groups().Path(vm))
	if err != nil {
		s.opts.Log.Warn("the VMM has no jail", "vm", vm, "err", err)
		return c.Options, nil
	}
	options := map[string]string{}
	maps.Copy(options, c.Options)
	maps.Copy(options, more)
	return options, &shim.Jail{UID: int(id.UID), GID: int(id.GID), Dir: string(s.dirs.Jails())}
}
