package report

import (
	"context"
	"os/exec"
	"strings"

	"banger"
	"banger/internal/api/wire"
	"banger/internal/dns"
	"banger/internal/host"
)

// Host returns the lines that need no daemon. vmms are the VMMs that the daemon knows, if there is one.
func Host(kvm host.KVM, stateDir string, vmms []wire.VMM) []wire.Check {
	path, missing := exec.LookPath(qemuProgram)
	checks := append([]wire.Check{checkKVM(kvm), checkQEMU(path, missing == nil, vmms)}, checkTools(exec.LookPath)...)
	free, err := host.FreeBytes(stateDir)
	return append(checks, checkDisk(stateDir, free, err))
}

func checkKVM(kvm host.KVM) wire.Check {
	if kvm.Usable {
		return pass("kvm", "KVM executes guests in hardware")
	}
	return warn("kvm", "VMs are emulated, slow and without an isolation boundary: "+kvm.Reason,
		"run on a host with hardware virtualisation, and join the group kvm")
}

const qemuProgram = "qemu-system-x86_64"

// checkQEMU returns the line about QEMU. Without QEMU no VM starts, unless the daemon says that it can use
// Firecracker.
func checkQEMU(path string, installed bool, vmms []wire.VMM) wire.Check {
	const fix = "apt-get install qemu-system-x86"
	if installed {
		return pass(qemuProgram, path)
	}
	for _, m := range vmms {
		if m.Name == banger.VMMFirecracker && m.Problem == "" {
			return warn(qemuProgram, "not installed; Firecracker runs VMs here, and QEMU would add "+
				"VMs on hosts without KVM, and disks that give the room of deleted files back", fix)
		}
	}
	return fail(qemuProgram, "not installed; it runs VMs", fix)
}

// checkTools checks the programs that make images and fetch kernels. find returns the path of a program.
func checkTools(find func(string) (string, error)) (checks []wire.Check) {
	for _, t := range []struct{ tool, purpose, pkg string }{
		{"mmdebstrap", "makes the catalogue's Debian images", "mmdebstrap"},
		{"apt-get", "fetches guest kernels", "apt"},
		{"dpkg-deb", "unpacks guest kernels", "dpkg"},
	} {
		if path, err := find(t.tool); err == nil {
			checks = append(checks, pass(t.tool, path))
		} else {
			checks = append(checks, warn(t.tool, "not installed; it "+t.purpose, "apt-get install "+t.pkg))
		}
	}
	return checks
}

// littleRoom is the free space in bytes below which the user is warned.
const littleRoom = 2 << 30

func checkDisk(dir string, free int64, err error) wire.Check {
	switch {
	case err != nil:
		return fail("disk", err.Error(), "")
	case free < littleRoom:
		return warn("disk", banger.FormatSize(free)+" free in "+dir,
			"free some: banger prune, banger image rm")
	}
	return pass("disk", banger.FormatSize(free)+" free in "+dir)
}

// FindsNames reports whether programs of the host find VMs by name. It runs getent, because a static program such as
// this one cannot ask in the way of other programs.
func FindsNames(ctx context.Context) bool {
	out, err := exec.CommandContext(ctx, "getent", "ahostsv4", dns.Self).Output()
	return err == nil && strings.HasPrefix(string(out), "127.0.0.1 ")
}
