package daemon

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"

	"banger"
	"banger/internal/api/wire"
	"banger/internal/host"
	"banger/internal/shim/server"
	"banger/internal/vmm"
	"banger/internal/vmm/choice"
	"banger/internal/vmm/firecracker"
	"banger/internal/vmm/qemu"
)

// drivers returns the drivers that a shim can use.
func drivers() map[string]vmm.Driver {
	return map[string]vmm.Driver{banger.VMMQEMU: qemu.Driver{}, banger.VMMFirecracker: firecracker.Driver{}}
}

// vmms returns the VMMs in the order of preference. BANGER_FIRECRACKER_OPTIONS holds options of Firecracker's driver,
// as name=value separated by commas.
func vmms(getenv func(string) string) ([]choice.VMM, error) {
	options, err := parseOptions(getenv("BANGER_FIRECRACKER_OPTIONS"))
	if err != nil {
		return nil, err
	}
	var reads []string
	if template := options["cpu_template"]; template != "" {
		reads = []string{template}
	}
	return []choice.VMM{
		{Name: banger.VMMFirecracker, Find: finder(firecracker.Driver{}), Package: host.GetFirecracker(), NeedsKVM: true,
			OpensTaps: true, Sockets: true, Templates: true, Options: options, Reads: reads, Jailer: jailer()},
		{Name: banger.VMMQEMU, Find: finder(qemu.Driver{}), Package: "apt-get install qemu-system-x86",
			CheckCPU: qemu.CheckCPU, Templates: true, SealedMemory: true, Overlays: true},
	}, nil
}

// jailer returns a function that finds Firecracker's jailer and returns the options for using it.
func jailer() func(ctx context.Context, path, version, dir string, uid, gid uint32, group string) (map[string]string,
	error) {
	var known remembered
	return func(ctx context.Context, path, version, dir string, uid, gid uint32, group string) (map[string]string, error) {
		jailer, err := firecracker.FindJailer(path, version, dir, func(path string) (string, error) {
			return known.version(path, func() (string, error) { return firecracker.JailerVersion(ctx, path) })
		})
		if err != nil {
			return nil, err
		}
		return map[string]string{firecracker.OptionJailer: jailer, firecracker.OptionJails: dir,
			firecracker.OptionUID: fmt.Sprint(uid), firecracker.OptionGID: fmt.Sprint(gid), firecracker.OptionGroup: group}, nil
	}
}

func parseOptions(text string) (map[string]string, error) {
	if text == "" {
		return nil, nil
	}
	options := map[string]string{}
	for part := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(part, "=")
		if !ok || name == "" {
			return nil, banger.Errorf(banger.CodeInvalid,
				"BANGER_FIRECRACKER_OPTIONS has %.40q, which is not of the form name=value", part)
		}
		options[name] = value
	}
	return options, nil
}

// finder returns a function that finds a driver's program and its version.
func finder(d vmm.Driver) func(context.Context) (string, string, error) {
	var known remembered
	return func(ctx context.Context) (string, string, error) {
		path, err := d.Path()
		if err != nil {
			return "", "", err
		}
		version, err := known.version(path, func() (string, error) { return d.Version(ctx) })
		if err != nil {
			return "", "", err
		}
		return path, version, nil
	}
}

// remembered caches the version that a program has reported. It asks again only after the program's file has changed,
// because each question starts a process.
type remembered struct {
	mu        sync.Mutex
	key, said string
}

func (r *remembered) version(path string, ask func() (string, error)) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if key := fmt.Sprint(path, info.Size(), info.ModTime()); key != r.key {
		if r.said, err = ask(); err != nil {
			r.key = ""
			return "", err
		}
		r.key = key
	}
	return r.said, nil
}

// describe says what new VMs run on, or why none can run, and describes the state of each VMM.
func describe(ctx context.Context, vmms []choice.VMM, kvm host.KVM, state string) (first string, all []wire.VMM) {
	for _, v := range vmms {
		s := wire.VMM{Name: v.Name}
		var err error
		if s.Path, s.Version, err = v.Find(ctx); err != nil {
			s.Problem, s.Fix = err.Error(), v.Package
		} else if v.NeedsKVM && !kvm.Usable {
			s.Problem = "it needs KVM: " + kvm.Reason
		} else if err := checkReach(ctx, v, s.Path, s.Version, state); err != nil {
			s.Problem = err.Error()
		} else {
			if v.Name == banger.VMMFirecracker {
				s.Confined = confinement(ctx, v, s.Path, s.Version, state)
				s.Warning = firecracker.Warning(s.Version) // no other release repairs this completely
			}
			if first == "" {
				first = v.Name + " " + s.Version
			}
		}
		all = append(all, s)
	}
	if first == "" {
		first = all[len(all)-1].Problem
	}
	return first, all
}

// checkReach returns an error if a VM's own user cannot start a VMM. It matters only for a daemon of root without a
// jailer for the VMM.
func checkReach(ctx context.Context, v choice.VMM, path, version, dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	if v.Jailer != nil {
		if _, err := v.Jailer(ctx, path, version, dir, 0, 0, ""); err == nil {
			return nil
		}
	}
	return vmm.CheckReach(path)
}

// confinement says what confines Firecracker on this host.
func confinement(ctx context.Context, v choice.VMM, path, version, dir string) string {
	rootless := "rootless: in namespaces of its own, confined by " + server.Confinement()
	if os.Geteuid() != 0 {
		return rootless
	}
	options, err := v.Jailer(ctx, path, version, dir, 0, 0, "")
	if err != nil {
		return rootless + ", and not jailed: " + err.Error()
	}
	return "jailed by " + options[firecracker.OptionJailer]
}
