package warm

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"banger"
	"banger/internal/guest"
	"banger/internal/network"
	"banger/internal/plan"
	"banger/internal/shim"
	"banger/internal/vmm"
)

// shape is what VMs have in common that can start from one template.
type shape struct {
	key       string // hash of all that the guest can see
	vm        banger.VM
	initramfs string // path
	disk      int64  // size in bytes
	start     string // banger.Template.Start
}

// facts are all that a guest can see before its configuration, but not its address. Whatever differs makes another
// template. A VM whose disk was used starts from one that has not read its disk.
type facts struct {
	Banger   string
	Manifest vmm.Manifest
	Options  map[string]string
	CPUModel string
	Cmdline  string
	Program  string // the VMM's file
	Kernel   string
	Images   []string // the shared drives
	Network  string
	MTU      int
	Attached shim.Attachment
	Jailed   bool
	ReadOnly bool
	Start    string
}

// These are the reasons why some VMs never start from a template.
var (
	errNested = errors.New("a VM that can run VMs of its own always boots")
	errBridge = errors.New("a VM on a bridge always boots")
	errVMM    = errors.New("its VMM has no templates")
)

// shapeOf returns the shape of a VM that starts by p. An error says why no template can fit it.
func shapeOf(p plan.Plan, vm banger.VM, fresh bool) (shape, error) {
	c := p.Shim.VM
	switch {
	case c.Nested:
		return shape{}, errNested
	case banger.OnBridge(vm.Spec.Network):
		return shape{}, errBridge
	case !p.Templates:
		return shape{}, errVMM
	}
	f := facts{Banger: banger.Version, CPUModel: c.CPUModel, Cmdline: c.Cmdline, Network: vm.Spec.Network,
		Options: p.Options, Start: startOf(vm, fresh), Jailed: p.Shim.Jail != nil,
		ReadOnly: vm.Spec.ReadOnly}
	var err error
	if f.Manifest, err = vmm.NewManifest(p.Shim.Driver, c.Version, c); err != nil {
		return shape{}, err
	}
	f.Manifest.NICs, f.Manifest.Options = nil, nil // they name the VM too
	f.Manifest.Kernel.Path, f.Manifest.Initrd.Path = "", filepath.Base(c.Initrd)
	if n := p.Shim.Network; n != nil {
		f.MTU, f.Attached = network.UserMTU, n.Attachment()
	}
	s := shape{vm: vm, initramfs: c.Initrd, start: f.Start}
	for i, d := range c.Drives {
		if !d.ReadOnly {
			s.disk = f.Manifest.Drives[i].Size
			continue
		}
		id, err := identity(d.Path)
		if err != nil {
			return shape{}, err
		}
		f.Images = append(f.Images, id)
	}
	for _, of := range []struct {
		to   *string
		path string
	}{{&f.Program, c.Program}, {&f.Kernel, c.Kernel}} {
		if *of.to, err = identity(of.path); err != nil {
			return shape{}, err
		}
	}
	data, err := json.Marshal(f)
	if err != nil {
		return shape{}, err
	}
	sum := sha256.Sum256(data)
	s.key = hex.EncodeToString(sum[:])
	return s, nil
}

// The kinds of starts of a VM, each with templates of its own.
const (
	startFirst  = "first"  // the disk is empty
	startLater  = "later"  // the disk was used
	startBooted = "booted" // the disk is empty, and the image's init has booted in the template
)

// waits are the kernel arguments that say where the guest of a template waits. Without one it waits before it mounts
// its disk.
var waits = map[string]string{startFirst: guest.MountArgument, startBooted: guest.BootedArgument}

func startOf(vm banger.VM, fresh bool) string {
	switch {
	case !fresh:
		return startLater
	case vm.Spec.Warm == banger.WarmBooted:
		return startBooted
	}
	return startFirst
}

// identity names a file and its content, wherever the state directory is.
func identity(path string) (string, error) {
	if path == "" { // the driver searches for its program
		return "", nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	dir, name := filepath.Split(path)
	return fmt.Sprintf("%s/%s %d %d", filepath.Base(dir), name, info.Size(), info.ModTime().UnixNano()), nil
}

// fits reports whether a VM can still start from a template: its image and its kernel are there, and this banger has
// made it.
func (w *Warm) fits(t banger.Template) bool {
	if t.Banger != banger.Version {
		return false
	}
	_, err := w.o.Plans.Images.Get(t.ImageDigest)
	if err == nil {
		_, err = w.o.Plans.Kernels.Get(t.Kernel)
	}
	return err == nil
}
