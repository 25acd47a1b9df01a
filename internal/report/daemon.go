package report

import (
	"context"
	"fmt"

	"banger"
	"banger/internal/api/wire"
)

// Daemon returns the lines about a daemon, by what it says of itself. The first one is about the daemon as such.
func Daemon(ctx context.Context, v wire.Version) []wire.Check {
	checks := []wire.Check{
		{Name: "daemon", Result: wire.Pass,
			Detail: fmt.Sprintf("version %s, pid %d, SQLite %s", v.Version, v.PID, v.SQLite)},
	}
	for _, p := range v.Problems {
		checks = append(checks, wire.Check{Name: "state", Result: wire.Warn, Detail: p, Fix: "see: banger recover --help"})
	}
	checks = append(checks, checkNames(v, func() bool { return FindsNames(ctx) }))
	checks = append(checks, checkVMMs(v.VMMs)...)
	return append(checks, checkLimits(v), checkNested(v))
}

// checkNames returns the line about the names of VMs. found reports whether programs of this host find them.
func checkNames(v wire.Version, found func() bool) wire.Check {
	switch {
	case v.DNS == "":
		return warn("names", "no names of VMs are answered: "+v.DNSProblem,
			"restart the daemon: banger daemon stop")
	case v.DNSProblem != "":
		return warn("names", "NAME.vm is answered at "+v.DNS+": "+v.DNSProblem, "see: banger dns status")
	case !found():
		return warn("names", "NAME.vm is answered at "+v.DNS+", where this host does not ask",
			"see: banger dns status")
	}
	return pass("names", "this host finds NAME.vm")
}

// checkVMMs returns a line for Firecracker and one for each other VMM that is installed and cannot be used. checkQEMU
// has already looked for QEMU itself.
func checkVMMs(vmms []wire.VMM) (checks []wire.Check) {
	for _, m := range vmms {
		switch {
		case m.Name != banger.VMMFirecracker && m.Path != "" && m.Problem != "":
			checks = append(checks, fail(m.Name, m.Problem, m.Fix))
		case m.Name != banger.VMMFirecracker:
		case m.Problem != "":
			checks = append(checks, warn(m.Name, "not used: "+m.Problem, m.Fix))
		case m.Warning != "":
			checks = append(checks, warn(m.Name, m.Path+": "+m.Warning+"; "+m.Confined, m.Fix))
		default:
			checks = append(checks, pass(m.Name, m.Path+", version "+m.Version+", "+m.Confined))
		}
	}
	return checks
}

func checkLimits(v wire.Version) wire.Check {
	switch {
	case v.Limits == "":
		return warn("limits", "VMs may use all of the host: "+v.LimitsProblem,
			"start the daemon in a session of your own: systemd-run --user --scope -- banger daemon run")
	case v.LimitsProblem != "":
		return warn("limits", "VMs have control groups in "+v.Limits+", but "+v.LimitsProblem,
			"boot the host with systemd.unified_cgroup_hierarchy=1")
	}
	return pass("limits", "VMs have control groups in "+v.Limits)
}

// checkNested says whether VMs started with --nested can run VMs of their own.
func checkNested(v wire.Version) wire.Check {
	switch {
	case v.NestedProblem != "":
		return warn("nested", "VMs cannot run VMs of their own: "+v.NestedProblem, "")
	case v.KVM == wire.KVMUsable:
		return pass("nested", "VMs with --nested can run VMs of their own, by this host's KVM")
	}
	return pass("nested", "VMs with --nested can run VMs of their own, emulated")
}

// Kernels returns the line about the kernels of guests, or about the error in place of their list.
func Kernels(kernels []banger.Kernel, err error) wire.Check {
	switch {
	case err != nil:
		return fail("kernel", err.Error(), "")
	case len(kernels) == 0:
		return warn("kernel", "none is installed; the first run fetches one", "banger kernel pull")
	}
	return pass("kernel", kernels[0].Name)
}
