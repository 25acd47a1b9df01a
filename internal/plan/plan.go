// Package plan makes of a VM what its start needs: the configuration of its VMM and its shim, and that of its agent. It
// starts nothing, and must not know of states or rows.
package plan

import (
	"cmp"
	"context"
	"log/slog"
	"os"

	"banger"
	"banger/internal/guest"
	"banger/internal/image"
	"banger/internal/kernel"
	"banger/internal/library"
	"banger/internal/limit"
	"banger/internal/network"
	"banger/internal/networks"
	"banger/internal/overlay"
	"banger/internal/resolve"
	"banger/internal/shim"
	"banger/internal/vmdir"
	"banger/internal/vmm"
	"banger/internal/vmm/choice"
)

// Planner has what all plans are made of. The caller owns its parts.
type Planner struct {
	Dirs     vmdir.Dirs
	State    string // directory of what VMs share
	Agent    []byte // the guest agent's binary
	VMMs     choice.Host
	KVMGroup uint32 // group that may open /dev/kvm, for VMMs that run as users of their own
	Root     bool   // each VM gets a uid of its own
	Images   *image.Store
	Kernels  *kernel.Store
	Library  *library.Library
	Groups   limit.Groups
	Layers   *overlay.Store // of VMs whose disks have a base
	Log      *slog.Logger
}

// Plan is what one start needs.
type Plan struct {
	Shim     shim.Spec
	Identity shim.Identity // of the shim and its VMM
	VMM      string        // name and version
	// Options are those of the driver that do not name this VM.
	Options map[string]string
	// Templates says that the VMM can start VMs from a template, and SealedMemory that it opens the memory for writing,
	// though it does not write.
	Templates, SealedMemory bool
}

// In returns p for VMs whose files are in other directories.
func (p Planner) In(dirs vmdir.Dirs) Planner {
	p.Dirs = dirs
	return p
}

// agentChannel is the name of the agent's port in the guest.
const agentChannel = "banger.agent"

// guestTap is the name of the tap for a VMM that opens it by name. It is the only tap in its network namespace.
const guestTap = "tap0"

// Initramfs returns the path and the name of the initramfs for a boot of vm. It makes the file if it is not there.
func (p Planner) Initramfs(vm banger.VM) (path, name string, err error) {
	k, err := p.Kernels.Get(vm.Kernel)
	if err != nil {
		return "", "", err
	}
	return p.Library.Initramfs(k.Name, p.Agent)
}

// Make returns the plan for a start of vm, whose VMM belongs to the user uid if the daemon is root. initramfs is a
// path. Make waits until the VM's image is complete, and gives the VMM's user the right to read what VMs share.
func (p Planner) Make(ctx context.Context, vm banger.VM, uid uint32, initramfs string) (Plan, error) {
	k, err := p.Kernels.Get(vm.Kernel)
	if err != nil {
		return Plan{}, err
	}
	if err := p.Images.Ready(ctx, vm.ImageDigest, banger.Discard); err != nil {
		return Plan{}, err
	}
	driver, err := p.VMMs.Choose(ctx, vm.Spec)
	disk, derr := p.disk(vm)
	if err = cmp.Or(err, derr); err != nil {
		return Plan{}, err
	}
	made := Plan{VMM: driver.String(), Options: driver.Options, Templates: driver.Templates,
		SealedMemory: driver.SealedMemory}
	if p.Root {
		made.Identity = shim.Identity{UID: uid, GID: uid}
		if p.VMMs.KVM {
			made.Identity.Groups = []uint32{p.KVMGroup}
		}
	}
	options, jail := p.jail(ctx, driver, vm.ID, made.Identity)
	if err := p.checkReach(driver, jail != nil); err != nil {
		return Plan{}, err
	}
	net := p.network(vm, uid)
	if net != nil && driver.OpensTaps {
		net.Tap = guestTap
	}
	cmdline := ""
	if vm.Spec.Init == banger.InitImage {
		cmdline = guest.InitArgument
	}
	config := vmm.Config{
		ID:        vm.ID,
		Dir:       p.Dirs.Sockets(vm.ID),
		Accel:     p.VMMs.Accel(),
		CPUModel:  vm.Spec.CPUModel,
		Nested:    vm.Spec.Nested != "",
		Program:   driver.Path,
		Version:   driver.Version,
		Options:   options,
		Reads:     driver.Reads,
		Sockets:   driver.Sockets,
		Kernel:    p.Kernels.Vmlinux(k.Name),
		Initrd:    initramfs,
		Cmdline:   cmdline,
		CPUs:      vm.Spec.CPUs,
		MemoryMiB: int(vm.Spec.Memory >> 20),
		Channel:   agentChannel,
		Drives: []vmm.Drive{
			{Serial: "rootfs", Path: p.Images.RootfsPath(vm.ImageDigest), ReadOnly: true},
			disk,
			{Serial: "modules", Path: p.Kernels.ModulesDisk(k.Name), ReadOnly: true},
		},
	}
	made.Shim = shim.Spec{Driver: driver.Name, Network: net, Jail: jail, VM: config}
	return made, p.openToAll(config)
}

// disk returns the VM's own disk.
func (p Planner) disk(vm banger.VM) (vmm.Drive, error) {
	if vm.Base == "" {
		return vmm.Drive{Serial: "disk", Path: p.Dirs.Disk(vm.ID, "")}, nil
	}
	return p.Layers.Drive(vm)
}

// network returns the wanted state of a VM's network, or nil if it has none.
func (p Planner) network(vm banger.VM, uid uint32) *shim.Network {
	if vm.Spec.Network == banger.NetworkNone {
		return nil
	}
	n := &shim.Network{MAC: network.MAC(vm.ID), Policy: banger.Policy{Default: banger.Deny},
		Loopback: networks.Loopback(os.Getuid(), int(uid-shim.FirstUID)), Owner: uint32(os.Getuid())}
	if vm.Spec.Policy != nil {
		n.Policy = *vm.Spec.Policy
	}
	if banger.OnBridge(vm.Spec.Network) {
		n.Loopback = "" // it has an address of its own
	}
	return n
}

// Guest returns the agent's configuration of a VM that already has its network, without the part for the network.
func (p Planner) Guest(vm banger.VM, net *guest.Network, hostKey string) guest.Config {
	hostname := vm.Spec.Hostname
	if hostname == "" {
		hostname = vm.Name
	}
	img, err := p.Images.Get(vm.ImageDigest)
	if err != nil {
		img = banger.Image{} // the VM has its root, and boots without what else the image says
	}
	c := resolve.Guest(vm.Spec, img)
	c.NoMain = vm.Main == nil
	c.Hostname, c.SSHHostKey, c.Network = hostname, hostKey, net
	resolve.Names(&c, vm.Spec)
	return c
}
