package reset

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"banger"
	"banger/internal/overlay"
	"banger/internal/private"
	"banger/internal/vmdir"
)

// VM is a VM whose files are there.
type VM struct {
	ID      string `json:"id"`
	Name    string `json:"name"` // "" if no record tells it
	Running bool   `json:"running"`
	Bytes   int64  `json:"bytes"` // on the disk
}

// Part is a number of things and the room that they take.
type Part struct {
	Count int   `json:"count"`
	Bytes int64 `json:"bytes"` // on the disk
}

// Found is what there is.
type Found struct {
	VMs     []VM `json:"vms"`
	Lost    Part `json:"lost"` // directories of VMs that were set aside
	Images  Part `json:"images"`
	Kernels Part `json:"kernels"`
	Frozen  Part `json:"templates"`
	// Snapshots are without their disks, which are among Layers.
	Snapshots Part            `json:"snapshots"`
	Layers    []overlay.Usage `json:"layers"`
	// Workspaces are the baselines of workspaces, which the client keeps.
	Workspaces Part `json:"workspaces"`
	Other      Part `json:"other"` // files: databases, logs, caches, keys
	Sockets    Part `json:"sockets"`
	Daemon     int  `json:"daemon"` // its process, or 0
	Bridges    bool `json:"bridges"`
}

// Empty reports whether there is nothing.
func (f Found) Empty() bool {
	things := len(f.VMs) + f.Lost.Count + f.Images.Count + f.Kernels.Count + f.Frozen.Count + f.Other.Count +
		f.Snapshots.Count + len(f.Layers) + f.Workspaces.Count
	return things == 0 && f.Daemon == 0 && !f.Bridges
}

// Bytes returns the room that everything takes on the disk.
func (f Found) Bytes() int64 {
	n := f.Lost.Bytes + f.Images.Bytes + f.Kernels.Bytes + f.Frozen.Bytes + f.Other.Bytes + f.Sockets.Bytes
	for _, vm := range f.VMs {
		n += vm.Bytes
	}
	for _, l := range f.Layers {
		n += l.Bytes
	}
	return n + f.Snapshots.Bytes + f.Workspaces.Bytes
}

// Look returns what Remove would remove. It changes nothing. It returns an error if one of the directories holds what
// is not banger's, if others may change it, or if something is mounted below it.
func Look(h Home) (f Found, err error) {
	if err := errors.Join(checkContents(h.State, stateEntries), checkContents(h.Run, runEntries)); err != nil {
		return f, err
	}
	if err := checkMark(h.State); err != nil {
		return f, err
	}
	for _, dir := range []string{h.State, h.Run} {
		if err := checkMounts(dir, "/proc/self/mountinfo"); err != nil {
			return f, err
		}
	}
	return Measure(h)
}

// Measure returns what Look returns, of directories that need not be in order.
func Measure(h Home) (f Found, err error) {
	if f.VMs, err = vms(h); err != nil {
		return f, err
	}
	f.Daemon = max(holder(h.State), holder(h.Run))
	f.Lost = Part{len(vmdir.Dirs{State: h.State}.Aside()), vmdir.Room(h.dirs().Lost())}
	f.Images = Part{countOf(filepath.Join(h.State, "images", "sha256")), vmdir.Room(filepath.Join(h.State, "images"))}
	f.Kernels = Part{countOf(filepath.Join(h.State, "kernels")), vmdir.Room(filepath.Join(h.State, "kernels"))}
	f.Frozen = Part{countOf(h.dirs().Ready()), vmdir.Room(h.dirs().Templates())}
	f.Snapshots = Part{countOf(h.dirs().Snapshots()), vmdir.Room(h.dirs().Snapshots())}
	f.Layers = overlay.Measure(h.dirs())
	workspaces := filepath.Join(h.State, "workspaces")
	f.Workspaces = Part{countOf(workspaces), vmdir.Room(workspaces)}
	f.Sockets = Part{countOf(h.Run), vmdir.Room(h.Run)}
	_, used := os.Lstat(filepath.Join(h.State, "bridge.used"))
	f.Bridges = used == nil
	entries, err := os.ReadDir(h.State)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	for _, e := range entries {
		if !slices.Contains(counted, e.Name()) && !isForeign(e.Name()) {
			f.Other.Count++
			f.Other.Bytes += vmdir.Room(filepath.Join(h.State, e.Name()))
		}
	}
	return f, nil
}

// counted are the entries of the state directory that Found tells apart.
var counted = []string{"vms", "lost", "images", "kernels", "templates", "layers", "snapshots", "workspaces"}

// vms returns the VMs that have a directory or a record, by name.
func vms(h Home) ([]VM, error) {
	ids := map[string]bool{}
	entries, err := os.ReadDir(h.dirs().VMs())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if id := strings.TrimSuffix(e.Name(), ".json"); banger.ValidID(id) {
			ids[id] = false
		}
	}
	if err := h.shims().Each(func(id string, _ int) { ids[id] = true }); err != nil {
		return nil, err
	}
	list := []VM{}
	for id, running := range ids {
		vm := VM{ID: id, Running: running, Bytes: h.dirs().Used(id)}
		if r, err := vmdir.ReadRecord(h.dirs().VMs(), id); err == nil {
			vm.Name = r.VM.Name
		}
		list = append(list, vm)
	}
	slices.SortFunc(list, func(a, b VM) int { return strings.Compare(a.Name+" "+a.ID, b.Name+" "+b.ID) })
	return list, nil
}

// stateEntries and runEntries are the names in the two directories, as patterns of path.Match.
var (
	stateEntries = []string{"banger.db*", "daemon.lock", "daemon.start", "daemon*.log", "dns.port", "kvm.json", "boot-id",
		"reserve", "bridge.json", "bridge.used", "images", "kernels", "templates", "vms", "lost", "jail", "ssh", "*.tmp",
		"layers", "snapshots", "helpers", "workspaces", "reviews", "programs", "agents", "work-*.lock", ".tmp-*"}
	runEntries = []string{"api.sock", "daemon.lock", "vms", "templates", "helpers", "secrets", "acp-*.lock", "ui.sock",
		"ui.lock", "ui-*.html"}
)

// isForeign reports whether an entry is not ours, and is expected all the same: a file system has it at its top.
func isForeign(name string) bool { return name == "lost+found" }

// checkContents returns an error if dir can be changed by others or holds anything that is not ours.
func checkContents(dir string, known []string) error {
	err := private.Check(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := checkNames(dir, func(name string) bool {
		return isForeign(name) || slices.ContainsFunc(known, func(p string) bool {
			ok, err := filepath.Match(p, name)
			return err == nil && ok
		})
	}); err != nil {
		return err
	}
	return checkNames(filepath.Join(dir, "vms"), func(name string) bool {
		return strings.HasSuffix(name, ".tmp") || strings.HasPrefix(name, ".") ||
			banger.ValidID(strings.TrimSuffix(name, ".json"))
	})
}

// checkNames returns an error if dir has an entry for which ours returns false. A missing directory has none.
func checkNames(dir string, ours func(name string) bool) error {
	info, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() { // a link is removed, but not followed
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !ours(e.Name()) {
			return banger.Errorf(banger.CodeInvalid, "%s holds %q, which is not banger's, so nothing is removed", dir,
				e.Name()).
				WithHint("move it elsewhere, if BANGER_STATE_DIR and BANGER_RUN_DIR are right")
		}
	}
	return nil
}

// checkMark returns an error if dir exists and is not empty, but no client and no daemon has ever used it.
func checkMark(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return !isForeign(e.Name()) }) {
		return nil
	}
	for _, name := range []string{daemonLock, startLock} {
		if info, err := os.Lstat(filepath.Join(dir, name)); err == nil && info.Mode().IsRegular() {
			return nil
		}
	}
	return banger.Errorf(banger.CodeInvalid, "%s has no file %s, so it is not banger's and nothing is removed", dir,
		daemonLock).
		WithHint("set BANGER_STATE_DIR to the directory of banger")
}

// checkMounts returns an error if something is mounted below dir, whose content would be removed too.
func checkMounts(dir, mountinfo string) error {
	real, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	data, rerr := os.ReadFile(mountinfo)
	if err := errors.Join(err, rerr); err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) { // proc_pid_mountinfo(5)
		f := strings.Fields(line)
		if len(f) < 5 {
			continue
		}
		if at := unescaped(f[4]); strings.HasPrefix(at, real+"/") {
			return banger.Errorf(banger.CodeConflict, "something is mounted at %s, so nothing is removed", at).
				WithHint("umount %s", at)
		}
	}
	return nil
}

// unescaped undoes the kernel's \ooo.
func unescaped(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// holder returns the daemon that holds the lock of dir, or 0.
func holder(dir string) int {
	f, err := os.OpenFile(filepath.Join(dir, daemonLock), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return 0
	}
	defer f.Close()
	if syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) == nil {
		return 0 // nobody holds it; the close releases it again
	}
	return private.ReadOwner(f).PID
}

// countOf returns the number of entries of dir whose names do not begin with a dot.
func countOf(dir string) (n int) {
	entries, _ := os.ReadDir(dir) // without the directory there are none
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			n++
		}
	}
	return n
}
