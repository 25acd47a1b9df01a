package vmm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/blob"
	"banger/internal/sparse"
	"banger/internal/untrusted"
)

// Snapshotter is implemented by a Process whose VMM can save its state to files.
type Snapshotter interface {
	// Snapshot writes the memory and the devices' state of a paused VM to dir, a directory without a
	// snapshot that the VMM may write to. The VM stays paused. The caller keeps the content of the
	// disks, since memory and disks belong together. A failure leaves no file of a snapshot in dir.
	//
	// Streams end when the VM continues, here or from dir. The first connection after that may be cut
	// before it is answered, so the first request must be one that may be sent twice.
	//
	// A Config with this directory as Restore continues from there.
	Snapshot(ctx context.Context, dir string) error
}

// ErrNestedSnapshot is returned for a VM that can run VMs of its own: the state of the inner VMs is
// in the CPU, and no VMM that we drive saves it reliably.
var ErrNestedSnapshot = errors.New("a VM that can run VMs of its own (--nested) has no snapshots")

// Files of a snapshot.
const (
	manifestFile  = "snapshot.json"
	usedFile      = "snapshot.used"   // the manifest of a snapshot from which a VM has gone on
	SnapshotState = "snapshot.state"  // state of CPUs and devices
	SnapshotRAM   = "snapshot.memory" // guest memory, sparse; restored VMs map it copy-on-write, so it never changes
)

// Files into which a VMM will write that must have them from its start (Config.Save). They become a snapshot's by being
// renamed.
const (
	NextState = "next.state"
	NextRAM   = "next.memory"
)

// snapshotFiles are all files of a snapshot. The first one makes it one.
var snapshotFiles = []string{manifestFile, usedFile, manifestFile + ".tmp", SnapshotState, SnapshotRAM}

// HasSnapshot reports whether dir has a whole snapshot.
func HasSnapshot(dir string) bool {
	info, err := os.Lstat(filepath.Join(dir, manifestFile))
	return err == nil && info.Mode().IsRegular()
}

// RemoveSnapshot removes the snapshot in dir, if there is one, durably and its manifest first. After a power cut there
// is the whole snapshot or none.
func RemoveSnapshot(dir string) error {
	for i, name := range snapshotFiles {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if i == 0 {
			if err := blob.Sync(dir); err != nil {
				return err
			}
		}
	}
	return nil
}

// RemoveUnfinished removes from the directory of a VM without a VMM what was left of snapshots, but not a whole one.
func RemoveUnfinished(dir string) (err error) {
	for _, name := range []string{NextState, NextRAM} {
		if rerr := os.Remove(filepath.Join(dir, name)); !errors.Is(rerr, os.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	if !HasSnapshot(dir) {
		err = errors.Join(err, RemoveSnapshot(dir))
	}
	return err
}

// UseSnapshot marks the snapshot in dir as used, durably: from now on there is none. A VM that goes on changes its
// disk, which then fits the memory no more. undo makes the snapshot whole again; it may be called if no guest code has
// run. The files stay for the VMM, until RemoveSnapshot.
func UseSnapshot(dir string) (undo func(), err error) {
	whole, used := filepath.Join(dir, manifestFile), filepath.Join(dir, usedFile)
	if err := os.Rename(whole, used); err != nil {
		return nil, err
	}
	undo = func() {
		os.Rename(used, whole)
		blob.Sync(dir)
	}
	if err := blob.Sync(dir); err != nil {
		undo()
		return nil, err
	}
	return undo, nil
}

// manifestFormat is raised when a Manifest changes its meaning.
const manifestFormat = 1

// Manifest describes the VM that a snapshot was taken of, and so what a VM that is restored from it
// must be.
type Manifest struct {
	Format    int               `json:"format"`
	Driver    string            `json:"driver"`
	Version   string            `json:"version"` // of the VMM
	Accel     Accel             `json:"accel"`
	CPU       string            `json:"cpu"`                 // the host's model, which guests of KVM have seen
	CPUModel  string            `json:"cpu_model,omitempty"` // what the driver asked the VMM for
	CPUs      int               `json:"cpus"`
	MemoryMiB int               `json:"memory_mib"`
	Kernel    File              `json:"kernel"`
	Initrd    File              `json:"initrd"`
	Drives    []DriveShape      `json:"drives"`
	NICs      []string          `json:"nics"` // MAC addresses, which the guest knows
	Channel   string            `json:"channel"`
	Spares    int               `json:"spares,omitempty"` // places for devices that come while the VM runs
	Options   map[string]string `json:"options,omitempty"`
	Private   map[string]string `json:"private,omitempty"` // private data of the driver
}

// File describes a file that must be the same at a restore.
type File struct {
	Path string `json:"path"`
	Size int64  `json:"size"`
}

// named returns f without the directory in which all kernels are, which may be another one now.
func (f File) named() File {
	f.Path = filepath.Join(filepath.Base(filepath.Dir(f.Path)), filepath.Base(f.Path))
	return f
}

// DriveShape is the part of a drive that a guest knows. The file may be another one with the same
// content.
type DriveShape struct {
	Serial   string `json:"serial"`
	Size     int64  `json:"size"`
	ReadOnly bool   `json:"read_only,omitempty"`
}

// SparesUpTo returns the number of the VM's spare places, or 0 if it is not one of a VM with at most that many. A VM of
// a banger that had none goes on without them.
func (m Manifest) SparesUpTo(most int) int {
	if m.Spares < 0 || m.Spares > most {
		return 0
	}
	return m.Spares
}

// NewManifest describes c as this host runs it with the given version of a driver.
func NewManifest(driver, version string, c Config) (Manifest, error) {
	m := Manifest{Format: manifestFormat, Driver: driver, Version: version, Accel: c.Accel, CPU: "emulated", CPUs: c.CPUs,
		MemoryMiB: c.MemoryMiB, Channel: c.Channel, Options: c.Options, Drives: []DriveShape{}, NICs: []string{}}
	if c.Accel == AccelKVM {
		m.CPU = hostCPU()
	}
	for _, f := range []struct {
		path string
		file *os.File
		to   *File
	}{{c.Kernel, c.KernelFile, &m.Kernel}, {c.Initrd, c.InitrdFile, &m.Initrd}} {
		info, err := statFile(f.path, f.file)
		if err != nil {
			return m, err
		}
		*f.to = File{f.path, info.Size()}
	}
	for _, d := range c.Drives {
		info, err := statFile(d.bottom())
		if err != nil {
			return m, err
		}
		m.Drives = append(m.Drives, DriveShape{d.Serial, info.Size(), d.ReadOnly})
	}
	for _, n := range c.NICs {
		m.NICs = append(m.NICs, n.MAC)
	}
	return m, nil
}

// hostCPU returns the model of the host's CPU and its features.
func hostCPU() string {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	var parts []string
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, ":")
		switch name = strings.TrimSpace(name); name {
		case "model name", "stepping", "microcode", "flags":
			parts = append(parts, strings.TrimSpace(value))
		case "":
			return strings.Join(parts, "; ") // of the first CPU
		}
	}
	return strings.Join(parts, "; ")
}

// Match returns an error that says in one clause how vm, which is to be restored from m, differs
// from m. The MAC addresses may differ, but not their number.
func (m Manifest) Match(vm Manifest) error {
	for _, c := range []struct{ what, had, has any }{
		{"the manifest's format", m.Format, vm.Format},
		{"the VMM", m.Driver, vm.Driver},
		{"the VMM's version", m.Version, vm.Version},
		{"the accelerator", m.Accel, vm.Accel},
		{"the host's CPU", m.CPU, vm.CPU},
		{"the CPU model", m.CPUModel, vm.CPUModel},
		{"the number of CPUs", m.CPUs, vm.CPUs},
		{"the memory in MiB", m.MemoryMiB, vm.MemoryMiB},
		{"the kernel", m.Kernel.named(), vm.Kernel.named()},
		{"the initramfs", m.Initrd.named(), vm.Initrd.named()},
		{"the list of drives", fmt.Sprint(m.Drives), fmt.Sprint(vm.Drives)},
		{"the number of network devices", len(m.NICs), len(vm.NICs)},
		{"the agent's channel", m.Channel, vm.Channel},
		{"the VMM's options", fmt.Sprint(m.Options), fmt.Sprint(vm.Options)},
	} {
		if c.had != c.has {
			return fmt.Errorf("the snapshot does not fit: %s was %v, and is %v", c.what, c.had, c.has)
		}
	}
	return nil
}

// maxManifest is the largest size of a manifest in bytes.
const maxManifest = 1 << 20

// ReadManifest reads the manifest of the snapshot in dir.
func ReadManifest(dir string) (Manifest, error) {
	data, err := untrusted.ReadFile(filepath.Join(dir, manifestFile), maxManifest)
	if errors.Is(err, os.ErrNotExist) {
		return Manifest{}, fmt.Errorf("there is no snapshot in %s: %w", dir, err)
	}
	return parseManifest(dir, data, err)
}

// parseManifest returns the manifest of the snapshot in dir, whose file has data unless err says why it cannot be read.
func parseManifest(dir string, data []byte, err error) (m Manifest, _ error) {
	if err == nil {
		err = json.Unmarshal(data, &m)
	}
	if err != nil {
		return m, fmt.Errorf("the snapshot in %s cannot be read: %w", dir, err)
	}
	return m, nil
}

// CommitSnapshot completes a snapshot. It syncs the files to disk before it writes the manifest,
// because a directory without a manifest is not a snapshot.
func CommitSnapshot(dir string, m Manifest) error {
	data, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, manifestFile+".tmp")
	if err := untrusted.WriteFile(tmp, append(data, '\n'), 0o600); err != nil {
		return err
	}
	if err := fillHoles(filepath.Join(dir, SnapshotRAM)); err != nil {
		return err
	}
	for _, name := range []string{SnapshotState, SnapshotRAM, manifestFile + ".tmp"} {
		if err := syncFile(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := os.Rename(tmp, filepath.Join(dir, manifestFile)); err != nil {
		return err
	}
	return blob.Sync(dir)
}

// TakeSnapshot calls write to fill dir, which must have no file of a snapshot. If that fails, it removes the files of
// the snapshot again.
func TakeSnapshot(dir string, write func() error) error {
	for _, name := range snapshotFiles {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("taking a snapshot: the directory %s has the file %s already", dir, name)
		}
	}
	if err := write(); err != nil {
		RemoveSnapshot(dir)
		return fmt.Errorf("taking a snapshot: %w", err)
	}
	return nil
}

// CompleteSnapshot is CommitSnapshot for a snapshot that TakeSnapshot has begun. If it fails, it removes the files.
func CompleteSnapshot(dir string, m Manifest) error {
	if err := CommitSnapshot(dir, m); err != nil {
		RemoveSnapshot(dir)
		return fmt.Errorf("taking a snapshot: %w", err)
	}
	return nil
}

// fillHoles allocates all pages of a file on a tmpfs now. On a tmpfs, reading a mapped hole
// allocates a page, and if no space is left, the kernel kills the reader, which would be the
// restored VM.
func fillHoles(path string) error {
	f, err := OpenOwn(path, os.O_RDWR)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	var fs unix.Statfs_t
	info, err := f.Stat()
	if err == nil {
		err = unix.Fstatfs(int(f.Fd()), &fs)
	}
	if err == nil && fs.Type == unix.TMPFS_MAGIC && info.Size() > 0 {
		err = os.NewSyscallError("fallocate", unix.Fallocate(int(f.Fd()), 0, 0, info.Size()))
	}
	return err
}

func syncFile(path string) error {
	f, err := OpenOwn(path, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// OpenOwn opens a file of a snapshot that was just written. It may have another name, in the VMM's jail.
func OpenOwn(path string, flag int) (*os.File, error) {
	return os.OpenFile(path, flag|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
}

// CopyFile copies src to a new file that only this user can read: by reference if the file system can do that,
// otherwise without the holes. It changes the offset of src. If it fails, it removes the new file.
func CopyFile(ctx context.Context, src *os.File, to string) (err error) {
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := dst.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			os.Remove(to)
		}
	}()
	return sparse.Copy(ctx, dst, src)
}
