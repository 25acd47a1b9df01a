// Package doctor checks what this host can do and says what to mend.
//
// It must not know how the report is printed. It changes nothing, except that a daemon may start.
package doctor

import (
	"context"
	"os/exec"
	"strings"

	"banger"
	"banger/internal/api/wire"
	"banger/internal/cli/connect"
	"banger/internal/dns"
	"banger/internal/host"
)

// Check is one line of the report.
type Check struct {
	Name   string `json:"name"`
	Result string `json:"result"` // PASS, WARN or FAIL
	Detail string `json:"detail"`
	Fix    string `json:"fix,omitempty"`
}

// The results of checks.
const (
	Pass = "PASS" // nothing is wrong
	Warn = "WARN" // something does not work as well as it could
	Fail = "FAIL" // banger cannot run VMs
)

// Diagnose checks this host and the daemon, which it starts if necessary. stateDir is the state directory.
func Diagnose(ctx context.Context, daemon *connect.Daemon, stateDir string) []Check {
	ctx, cancel := context.WithTimeout(ctx, connect.StartTime)
	defer cancel()
	checks := []Check{checkKVM(host.ProbeKVM(""))}
	client, failed := daemon.Connect(ctx)
	failedFix := "see " + daemon.LogPath()
	var version wire.Version
	if failed == nil {
		version, failed = client.Version(ctx)
		failedFix = "restart it: banger daemon stop"
	}
	path, missing := exec.LookPath(qemuProgram)
	checks = append(checks, checkQEMU(path, missing == nil, version.VMMs))
	checks = append(checks, checkTools(exec.LookPath)...)
	free, err := host.FreeBytes(stateDir)
	checks = append(checks, checkDisk(stateDir, free, err))
	if failed != nil {
		return append(checks, Check{"daemon", Fail, failed.Error(), failedFix})
	}
	checks = append(checks, checkDaemon(version)...)
	checks = append(checks, checkNames(version, func() bool { return FindsNames(ctx) }))
	checks = append(checks, checkVMMs(version.VMMs)...)
	checks = append(checks, checkLimits(version), checkNested(version))
	kernels, err := client.Kernels(ctx)
	return append(checks, checkKernels(kernels, err))
}

func checkKVM(kvm host.KVM) Check {
	if kvm.Usable {
		return Check{"kvm", Pass, "KVM executes guests in hardware", ""}
	}
	return Check{"kvm", Warn, "VMs are emulated, slow and without an isolation boundary: " + kvm.Reason,
		"run on a host with hardware virtualisation, and join the group kvm"}
}

const qemuProgram = "qemu-system-x86_64"

// checkQEMU returns the line about QEMU. Without QEMU no VM starts, unless the daemon says that it can use
// Firecracker.
func checkQEMU(path string, installed bool, vmms []wire.VMM) Check {
	const fix = "apt-get install qemu-system-x86"
	if installed {
		return Check{qemuProgram, Pass, path, ""}
	}
	for _, m := range vmms {
		if m.Name == banger.VMMFirecracker && m.Problem == "" {
			return Check{qemuProgram, Warn, "not installed; Firecracker runs VMs here, and QEMU would add " +
				"VMs on hosts without KVM, and disks that give the room of deleted files back", fix}
		}
	}
	return Check{qemuProgram, Fail, "not installed; it runs VMs", fix}
}

// checkTools checks the programs that make images and fetch kernels. find returns the path of a program.
func checkTools(find func(string) (string, error)) (checks []Check) {
	for _, t := range []struct{ tool, purpose, pkg string }{
		{"mmdebstrap", "makes the catalogue's Debian images", "mmdebstrap"},
		{"apt-get", "fetches guest kernels", "apt"},
		{"dpkg-deb", "unpacks guest kernels", "dpkg"},
	} {
		if path, err := find(t.tool); err == nil {
			checks = append(checks, Check{t.tool, Pass, path, ""})
		} else {
			checks = append(checks, Check{t.tool, Warn, "not installed; it " + t.purpose, "apt-get install " + t.pkg})
		}
	}
	return checks
}

// littleRoom is the free space in bytes below which the user is warned.
const littleRoom = 2 << 30

func checkDisk(dir string, free int64, err error) Check {
	switch {
	case err != nil:
		return Check{"disk", Fail, err.Error(), ""}
	case free < littleRoom:
		return Check{"disk", Warn, banger.FormatSize(free) + " free in " + dir,
			"free some: banger prune, banger image rm"}
	}
	return Check{"disk", Pass, banger.FormatSize(free) + " free in " + dir, ""}
}

// FindsNames reports whether programs of the host find VMs by name. It runs getent, because a static program such as
// this one cannot ask in the way of other programs.
func FindsNames(ctx context.Context) bool {
	out, err := exec.CommandContext(ctx, "getent", "ahostsv4", dns.Self).Output()
	return err == nil && strings.HasPrefix(string(out), "127.0.0.1 ")
}
