package daemon

import (
	"context"
	"os"
	"time"

	"banger"
	"banger/internal/api/wire"
	"banger/internal/cgroup"
	"banger/internal/host"
	"banger/internal/store"
	"banger/internal/vmm/choice"
)

// about is what a daemon reports about itself and its host.
type about struct {
	o        Options
	db       *store.Store
	kvm      host.KVM
	vmms     []choice.VMM
	groups   *cgroup.Tree
	noGroups error
	names    nameServers
	problems []string
	started  time.Time
}

// version returns the answer to GET /v1/version.
func (a about) version(ctx context.Context) wire.Version {
	v := wire.Version{
		Version:  banger.Version,
		API:      banger.APIVersion,
		PID:      os.Getpid(),
		Started:  a.started,
		State:    a.o.StateDir,
		Problems: a.problems,
		KVM:      wire.KVMUsable,
	}
	v.SQLite, _ = a.db.SQLiteVersion(ctx)
	v.DNS, v.DNSProblem = a.names.version()
	if !a.kvm.Usable {
		v.KVM = a.kvm.Reason
	} else if err := host.CheckNested(); err != nil {
		v.NestedProblem = err.Error()
	}
	v.VMM, v.VMMs = describe(ctx, a.vmms, a.kvm, a.o.StateDir)
	v.Limits, v.LimitsProblem = describeGroups(a.groups, a.noGroups)
	return v
}
