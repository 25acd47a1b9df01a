package firecracker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"banger/internal/sparse"
	"banger/internal/vmm"
)

const (
	// snapshotTimeout is the time limit for writing or reading a guest's memory.
	snapshotTimeout = 5 * time.Minute
	// settleTimeout is how long settle waits for a snapshot that was given up. Firecracker creates the
	// files within milliseconds, and they may be removed after that.
	settleTimeout = 2 * time.Second
)

// privateClock is a key of vmm.Manifest.Private, beside the names of places. Its value is clockRealtime if the state
// has the time of day.
const (
	privateClock  = "clock"
	clockRealtime = "realtime"
)

var errHugePages = errors.New("the VM has huge pages, and Firecracker goes on from no snapshot of such by a file")

// place is a file that Firecracker opens at the path that it had when the snapshot was taken.
type place struct{ what, path, was string }

// places returns the places of c, as Firecracker sees them. No version accepts a new path for a drive at a load. was
// are the places that an earlier banger has written down of the same VM: those that the host sees.
func places(c vmm.Config, jailed bool) (list []place) {
	view := outside(c)
	for i, d := range c.Drives {
		path := view.Drives[i].Path
		if jailed {
			path = "/" + d.Serial
		}
		list = append(list, place{"drive " + d.Serial, path, d.Path})
	}
	dir := view.Dir
	if jailed {
		dir = "/"
	}
	return append(list, place{"vsock", filepath.Join(dir, vsockSocket), filepath.Join(c.Dir, vsockSocket)})
}

func manifestOf(c vmm.Config, v version, jailed bool) (vmm.Manifest, error) {
	m, err := vmm.NewManifest(Driver{}.Name(), v.String(), c)
	m.Options = withoutJail(m.Options)
	m.Private = map[string]string{}
	if hostSavesTime() {
		m.Private[privateClock] = clockRealtime
	}
	for _, p := range places(c, jailed) {
		m.Private[p.what] = p.path
	}
	return m, err
}

// withoutJail returns options without those of the jail, which name the VM's own user and directory.
func withoutJail(options map[string]string) map[string]string {
	rest := maps.Clone(options)
	for _, name := range []string{OptionJailer, OptionJails, OptionUID, OptionGID, OptionGroup} {
		delete(rest, name)
	}
	return rest
}

// checkSnapshot returns an error if c does not fit the snapshot. It runs before anything is
// started, because Firecracker ends after a failed load. It sets what of o the snapshot decides: whether the guest's
// clock can be advanced at the load, and the number of spare drives.
func checkSnapshot(c vmm.Config, v version, o *options, jailed bool) error {
	if o.hugePages != "" {
		return errHugePages
	}
	had, err := vmm.ManifestOf(c)
	if err != nil {
		return err
	}
	had.Options = withoutJail(had.Options)
	has, err := manifestOf(c, v, jailed)
	if err == nil {
		err = had.Match(has)
	}
	if err != nil {
		return err
	}
	for _, p := range places(c, jailed) {
		if was := had.Private[p.what]; was != p.path && was != p.was && (p.what != "vsock" || !v.hasVsockOverride()) {
			return fmt.Errorf(
				"the snapshot does not fit: Firecracker %s looks for the %s where it was, at %.200q, and not at %s", v, p.what, was,
				p.path)
		}
	}
	o.clock = had.Private[privateClock] == clockRealtime && has.Private[privateClock] == clockRealtime
	o.spares = had.SparesUpTo(spareDrives)
	return nil
}

// Snapshot writes a full snapshot.
func (p *process) Snapshot(ctx context.Context, dir string) error {
	return vmm.TakeSnapshot(dir, func() error { return p.writeDown(ctx, dir) })
}

func (p *process) writeDown(ctx context.Context, dir string) error {
	if p.config.Options[optionHugePages] != "" {
		return errHugePages
	}
	if !p.paused.Load() { // since 1.15 Firecracker ends the guest's streams before it refuses
		return errors.New("the VM runs: pause it first")
	}
	m, err := manifestOf(p.config, p.version, p.root != nil)
	if err != nil {
		return err
	}
	m.Spares = p.spares
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, snapshotTimeout)
		defer cancel()
	}
	if err := p.pausing.take(ctx); err != nil {
		return err
	}
	defer p.pausing.leave()
	if err := p.pauseByAPI(ctx); err != nil {
		return err
	}
	if err := p.api.call(ctx, http.MethodPut, "/snapshot/create", p.snapshotParams(dir), nil); err != nil {
		p.settle()
		p.saves.empty(dir)
		return p.endOr(err)
	}
	p.pausing.reset = true
	if err := p.saves.keep(dir); err != nil {
		return err
	}
	if err := dig(ctx, filepath.Join(dir, vmm.SnapshotRAM)); err != nil {
		return err
	}
	return vmm.CommitSnapshot(dir, m)
}

// dig makes the file of the memory sparse. Firecracker writes also what the guest has never used.
func dig(ctx context.Context, path string) error {
	f, err := vmm.OpenOwn(path, os.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	return sparse.Dig(ctx, f)
}

// settle waits until Firecracker no longer writes. Firecracker answers one request at a time.
func (p *process) settle() {
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	var info InstanceInfo
	p.api.call(ctx, http.MethodGet, "/", nil, &info)
}

func (p *process) snapshotParams(dir string) SnapshotCreateParams {
	to := SnapshotCreateParams{SnapshotType: snapshotFull, SnapshotPath: p.saves.state, MemFilePath: p.saves.memory}
	if to.SnapshotPath == "" {
		to.SnapshotPath, to.MemFilePath = filepath.Join(dir, vmm.SnapshotState), filepath.Join(dir, vmm.SnapshotRAM)
	}
	return to
}

// loadPath is the request that loads a snapshot.
const loadPath = "/snapshot/load"

// restoreRequests returns the calls that restore c's snapshot, in order. The memory is mapped
// copy-on-write, so any number of VMs may share it. The limit of the serial port is not in a
// snapshot (device_manager/persist.rs takes it from /serial), so it is set again.
func restoreRequests(c vmm.Config, s saves, v version, o options) []request {
	load := SnapshotLoadParams{
		SnapshotPath:  s.fromState,
		MemBackend:    &MemoryBackend{BackendType: backendFile, BackendPath: s.fromMemory},
		ResumeVM:      true,
		ClockRealtime: o.clock && v.hasClockRealtime(),
	}
	for i, n := range c.NICs {
		load.NetworkOverrides = append(load.NetworkOverrides, NetworkOverride{IfaceID: ifaceID(i), HostDevName: n.Device})
	}
	if v.hasVsockOverride() {
		load.VsockOverride = &VsockOverride{UDSPath: filepath.Join(c.Dir, vsockSocket)}
	}
	list := []request{logRequest(c), metricsRequest(c)}
	if v.hasSerialLimit() {
		list = append(list, serialRequest())
	}
	return append(list, put(loadPath, load))
}
