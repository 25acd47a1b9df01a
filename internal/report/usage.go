package report

import (
	"slices"

	"banger"
	"banger/internal/api/wire"
	"banger/internal/overlay"
	"banger/internal/reset"
)

// things are what takes room.
type things struct {
	vms       []banger.VM
	images    []banger.ImageUsage
	unused    banger.Pruned // what a prune of all images would remove
	kernels   []banger.Kernel
	templates []banger.Template
	snapshots []banger.Snapshot
	found     reset.Found
}

// usage returns a line for each kind of things. With each, it also returns a line for each VM and each snapshot.
func (t things) usage(each bool) []wire.Usage {
	room := t.room()
	machines := wire.Usage{Type: "VMs", Total: len(t.vms)}
	imagesUsed, kernelsUsed, templatesUsed := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, vm := range t.vms {
		imagesUsed[vm.ImageDigest], kernelsUsed[vm.Kernel] = true, true
		machines.Size += room[vm.ID]
		if vm.State.AtRest() {
			machines.Reclaimable += room[vm.ID]
		} else {
			machines.Active++
			templatesUsed[vm.Template] = true
		}
	}
	images := wire.Usage{Type: "Images", Total: len(t.images), Size: t.found.Images.Bytes, Reclaimable: t.unused.Bytes}
	for _, img := range t.images {
		if imagesUsed[img.Digest] {
			images.Active++
		}
	}
	kernels := wire.Usage{Type: "Kernels", Total: len(t.kernels), Size: t.found.Kernels.Bytes}
	for _, k := range t.kernels {
		if kernelsUsed[k.Name] {
			kernels.Active++
		}
	}
	snapshots := wire.Usage{Type: "Snapshots", Total: t.found.Snapshots.Count, Size: t.found.Snapshots.Bytes}
	eachVM, eachSnapshot := []wire.Usage(nil), []wire.Usage(nil)
	if each {
		eachVM, eachSnapshot = t.each()
	}
	list := slices.Concat([]wire.Usage{images, machines}, eachVM, []wire.Usage{kernels, snapshots}, eachSnapshot,
		[]wire.Usage{layers(t.found.Layers, t.vms), templates(t.templates, templatesUsed)})
	if w := t.found.Workspaces; w.Count > 0 {
		list = append(list, wire.Usage{Type: "Workspaces", Total: w.Count, Size: w.Bytes})
	}
	return list
}

// room returns what each VM takes alone.
func (t things) room() map[string]int64 {
	room := map[string]int64{}
	for _, vm := range t.found.VMs {
		room[vm.ID] = vm.Bytes
	}
	return room
}

// each returns the lines of each VM and of each snapshot.
func (t things) each() (vms, snapshots []wire.Usage) {
	one := func(kind, name string, size int64, layer string) wire.Usage {
		u := wire.Usage{Type: kind, Name: name, Size: size}
		for _, bytes := range beneath(t.found.Layers, layer) {
			u.Shared += bytes
		}
		return u
	}
	room := t.room()
	for _, vm := range t.vms {
		vms = append(vms, one("VM", vm.Name, room[vm.ID], vm.Base))
	}
	for _, s := range t.snapshots {
		snapshots = append(snapshots, one("Snapshot", s.Name, s.Size, s.Layer))
	}
	return vms, snapshots
}

// layers returns the line of layers. Each of them is needed by a VM or a snapshot.
func layers(list []overlay.Usage, vms []banger.VM) wire.Usage {
	u := wire.Usage{Type: "Layers", Total: len(list)}
	active := map[string]bool{}
	for _, vm := range vms {
		for id := range beneath(list, vm.Base) {
			active[id] = true
		}
	}
	for _, l := range list {
		u.Size += l.Bytes
		if active[l.ID] {
			u.Active++
		}
	}
	return u
}

// beneath returns the layers that a layer consists of, with their sizes.
func beneath(list []overlay.Usage, id string) map[string]int64 {
	by, chain := map[string]overlay.Usage{}, map[string]int64{}
	for _, l := range list {
		by[l.ID] = l
	}
	for l, ok := by[id]; ok; l, ok = by[l.Parent] {
		if _, again := chain[l.ID]; again {
			break
		}
		chain[l.ID] = l.Bytes
	}
	return chain
}

// templates returns the line of templates. VMs that have started from one do not need it, so all can go.
func templates(list []banger.Template, used map[string]bool) wire.Usage {
	u := wire.Usage{Type: "Templates", Total: len(list)}
	for _, t := range list {
		u.Size += t.Size
		u.Reclaimable += t.Size
		if used[t.ID] {
			u.Active++
		}
	}
	return u
}
