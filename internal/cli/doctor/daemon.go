package doctor

import (
	"fmt"

	"banger"
	"banger/internal/api/wire"
	"banger/internal/cli/connect"
)

// checkDaemon returns the lines about the daemon itself and about what it could not repair when it started.
func checkDaemon(v wire.Version) []Check {
	checks := []Check{{"daemon", Pass, fmt.Sprintf("version %s, pid %d, SQLite %s", v.Version, v.PID, v.SQLite), ""}}
	if differs := connect.Differs(v.Version); differs != "" {
		checks[0] = Check{"daemon", Warn, differs, connect.Restart}
	}
	for _, p := range v.Problems {
		checks = append(checks, Check{"state", Warn, p, "see: banger recover --help"})
	}
	return checks
}

// checkNames returns the line about the names of VMs. found reports whether programs of this host find them.
func checkNames(v wire.Version, found func() bool) Check {
	switch {
	case v.DNS == "":
		return Check{"names", Warn, "no names of VMs are answered: " + v.DNSProblem,
			"restart the daemon: banger daemon stop"}
	case v.DNSProblem != "":
		return Check{"names", Warn, "NAME.vm is answered at " + v.DNS + ": " + v.DNSProblem, "see: banger dns status"}
	case !found():
		return Check{"names", Warn, "NAME.vm is answered at " + v.DNS + ", where this host does not ask",
			"see: banger dns status"}
	}
	return Check{"names", Pass, "this host finds NAME.vm", ""}
}

// checkVMMs returns a line for Firecracker and one for each other VMM that is installed and cannot be used. checkQEMU
// has already looked for QEMU itself.
func checkVMMs(vmms []wire.VMM) (checks []Check) {
	for _, m := range vmms {
		switch {
		case m.Name != banger.VMMFirecracker && m.Path != "" && m.Problem != "":
			checks = append(checks, Check{m.Name, Fail, m.Problem, m.Fix})
		case m.Name != banger.VMMFirecracker:
		case m.Problem != "":
			checks = append(checks, Check{m.Name, Warn, "not used: " + m.Problem, m.Fix})
		case m.Warning != "":
			checks = append(checks, Check{m.Name, Warn, m.Path + ": " + m.Warning + "; " + m.Confined, m.Fix})
		default:
			checks = append(checks, Check{m.Name, Pass, m.Path + ", version " + m.Version + ", " + m.Confined, ""})
		}
	}
	return checks
}

func checkLimits(v wire.Version) Check {
	switch {
	case v.Limits == "":
		return Check{"limits", Warn, "VMs may use all of the host: " + v.LimitsProblem,
			"start the daemon in a session of your own: systemd-run --user --scope -- banger daemon run"}
	case v.LimitsProblem != "":
		return Check{"limits", Warn, "VMs have control groups in " + v.Limits + ", but " + v.LimitsProblem,
			"boot the host with systemd.unified_cgroup_hierarchy=1"}
	}
	return Check{"limits", Pass, "VMs have control groups in " + v.Limits, ""}
}

// checkNested says whether VMs started with --nested can run VMs of their own.
func checkNested(v wire.Version) Check {
	switch {
	case v.NestedProblem != "":
		return Check{"nested", Warn, "VMs cannot run VMs of their own: " + v.NestedProblem, ""}
	case v.KVM == "usable":
		return Check{"nested", Pass, "VMs with --nested can run VMs of their own, by this host's KVM", ""}
	}
	return Check{"nested", Pass, "VMs with --nested can run VMs of their own, emulated", ""}
}

func checkKernels(kernels []banger.Kernel, err error) Check {
	switch {
	case err != nil:
		return Check{"kernel", Fail, err.Error(), ""}
	case len(kernels) == 0:
		return Check{"kernel", Warn, "none is installed; the first run fetches one", "banger kernel pull"}
	}
	return Check{"kernel", Pass, kernels[0].Name, ""}
}
