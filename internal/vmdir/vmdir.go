// Package vmdir knows where the files of VMs are on the host. It makes and removes their directories, and keeps a
// record of each VM beside its directory. It must not know what the files contain or whether a VM runs.
package vmdir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"banger"
	"banger/internal/blob"
	"banger/internal/untrusted"
	"banger/internal/vmm/jail"
)

// Dirs are the directories of one daemon.
type Dirs struct {
	State string // durable: disks, logs, records
	Run   string // sockets; may vanish at a reboot of the host
}

// VMs returns the directory with the directories and records of all VMs. They are named by ids.
func (d Dirs) VMs() string { return filepath.Join(d.State, "vms") }

// VM returns the durable directory of one VM.
func (d Dirs) VM(id string) string { return filepath.Join(d.VMs(), id) }

// AllSockets returns the directory with the socket directories of all VMs.
func (d Dirs) AllSockets() string { return filepath.Join(d.Run, "vms") }

// Sockets returns the directory of one VM's sockets.
func (d Dirs) Sockets(id string) string { return filepath.Join(d.AllSockets(), id) }

// AllSecrets returns the directory with the secret directories of all VMs.
func (d Dirs) AllSecrets() string { return filepath.Join(d.Run, "secrets") }

// Secrets returns the directory of one VM's secrets. It lasts from start to start, as long as the runtime directory.
func (d Dirs) Secrets(id string) string { return filepath.Join(d.AllSecrets(), id) }

// Disk returns the path of the file to which a VM's disk writes: a raw image or, if the disk has a base, an overlay on
// that layer.
func (d Dirs) Disk(id, base string) string {
	if base != "" {
		return filepath.Join(d.VM(id), "disk-"+base+".qcow2")
	}
	return filepath.Join(d.VM(id), diskFile)
}

// MakeBeneath makes an empty directory in that of a VM, for the same user.
func (d Dirs) MakeBeneath(id, name string) error {
	path := filepath.Join(d.VM(id), name)
	if err := untrusted.RemoveAll(path); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o700); err != nil || os.Geteuid() != 0 {
		return err
	}
	info, err := os.Lstat(d.VM(id))
	if err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	return os.Lchown(path, int(st.Uid), int(st.Gid))
}

// Layers returns the directory of what disks share.
func (d Dirs) Layers() string { return filepath.Join(d.State, "layers") }

// Snapshots returns the directory of snapshots.
func (d Dirs) Snapshots() string { return filepath.Join(d.State, "snapshots") }

// HostKey returns the path of a VM's SSH host key.
func (d Dirs) HostKey(id string) string { return filepath.Join(d.VM(id), hostKeyFile) }

// Files of a VM that last longer than one start.
const (
	diskFile    = "disk.ext4"
	hostKeyFile = "ssh_host_ed25519_key"
)

// OutputFiles returns the names of the files with what a VM's main command wrote, and with how far it is recorded.
func OutputFiles() []string { return []string{"output.log", "output.log.1", "output.at"} }

// Jails returns the directory of the VMMs' jails.
func (d Dirs) Jails() jail.Base { return jail.Base(filepath.Join(d.State, "jail")) }

// Templates returns the directory of templates, from which VMs start.
func (d Dirs) Templates() string { return filepath.Join(d.State, "templates") }

// Making returns the directories of VMs that become templates.
func (d Dirs) Making() Dirs {
	return Dirs{State: filepath.Join(d.Templates(), "making"), Run: filepath.Join(d.Run, "templates")}
}

// Helpers returns the directories of VMs that work for the daemon.
func (d Dirs) Helpers() Dirs {
	return Dirs{State: filepath.Join(d.State, "helpers"), Run: filepath.Join(d.Run, "helpers")}
}

// Ready returns the directory with the templates that are whole.
func (d Dirs) Ready() string { return filepath.Join(d.Templates(), "ready") }

// Lost returns the directory for directories of VMs that were set aside because they have no row.
func (d Dirs) Lost() string { return filepath.Join(d.State, "lost") }

// MakeAll makes the directories that hold the directories of VMs.
func (d Dirs) MakeAll() error {
	for _, dir := range []string{d.State, d.Run, d.VMs(), d.AllSockets()} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return err
		}
	}
	return nil
}

// Make makes the directories of a VM before its start, or takes them back from the VM's user. It removes everything
// that a hostile VMM may have made there.
func (d Dirs) Make(id string) error {
	d.CleanRun(id)
	for _, dir := range []string{d.VM(id), d.Sockets(id)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if err := untrusted.Reclaim(dir, diskFile, hostKeyFile); err != nil {
			return banger.Errorf(banger.CodeConflict, "the files of the VM cannot be used: %w", err)
		}
	}
	return nil
}

// CleanRun removes the files that only a running VM needs.
func (d Dirs) CleanRun(id string) {
	d.Jails().Remove(id)
	untrusted.RemoveAll(d.Sockets(id))
	os.Remove(filepath.Join(d.VM(id), "ram")) // earlier versions kept the guest's memory there
}

// Sync makes the names of a VM's files durable.
func (d Dirs) Sync(id string) error { return errors.Join(blob.Sync(d.VM(id)), blob.Sync(d.VMs())) }

// Remove deletes all files of a VM, durably. Otherwise files could come back after a power cut, when no row claims
// them any more.
func (d Dirs) Remove(id string) error {
	err := os.Remove(recordPath(d.VMs(), id))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(d.Jails().Remove(id), untrusted.RemoveAll(d.Secrets(id)), untrusted.RemoveAll(d.Sockets(id)),
		untrusted.RemoveAll(d.VM(id)), err, blob.Sync(d.VMs()))
}

// Unknown returns the ids of VMs that have a directory and are not in known.
func (d Dirs) Unknown(known map[string]bool) (ids []string, err error) {
	entries, err := os.ReadDir(d.VMs())
	for _, e := range entries {
		if _, ok := known[e.Name()]; !ok && banger.ValidID(e.Name()) {
			ids = append(ids, e.Name())
		}
	}
	return ids, err
}

// Sweep removes the files of the runtime directory, for all VMs that are not in kept, and their jails.
func (d Dirs) Sweep(kept map[string]bool) (err error) {
	for _, id := range d.Jails().IDs() {
		if banger.ValidID(id) && !kept[id] {
			err = errors.Join(err, d.Jails().Remove(id))
		}
	}
	for _, dir := range []string{d.AllSockets(), d.AllSecrets()} {
		entries, rerr := os.ReadDir(dir)
		if rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
		for _, e := range entries {
			if banger.ValidID(e.Name()) && !kept[e.Name()] {
				err = errors.Join(err, untrusted.RemoveAll(filepath.Join(dir, e.Name())))
			}
		}
	}
	return err
}

// SetAside moves the directory of a VM without a row, and its record, into Lost. It removes nothing.
func (d Dirs) SetAside(id string) error {
	if err := os.MkdirAll(d.Lost(), 0o700); err != nil {
		return err
	}
	name := id
	for n := 2; ; n++ {
		if _, err := os.Lstat(filepath.Join(d.Lost(), name)); errors.Is(err, fs.ErrNotExist) {
			break
		}
		name = fmt.Sprintf("%s-%d", id, n)
	}
	if err := os.Rename(d.VM(id), filepath.Join(d.Lost(), name)); err != nil {
		return err
	}
	err := os.Rename(recordPath(d.VMs(), id), recordPath(d.Lost(), name))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, blob.Sync(d.Lost()), blob.Sync(d.VMs()))
}

// PutBack is the reverse of SetAside.
func (d Dirs) PutBack(id string) error {
	if _, err := os.Lstat(d.VM(id)); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s exists", d.VM(id))
	}
	err := os.Rename(filepath.Join(d.Lost(), id), d.VM(id))
	if err == nil {
		err = os.Rename(recordPath(d.Lost(), id), recordPath(d.VMs(), id))
	}
	return errors.Join(err, blob.Sync(d.VMs()), blob.Sync(d.Lost()))
}

// Aside returns the directories that are set aside.
func (d Dirs) Aside() (dirs []string) {
	entries, _ := os.ReadDir(d.Lost())
	for _, e := range entries {
		if e.IsDir() {
			dirs = append(dirs, filepath.Join(d.Lost(), e.Name()))
		}
	}
	return dirs
}

// Used returns how many bytes of the host's disk a VM takes.
func (d Dirs) Used(id string) int64 {
	n := Room(d.VM(id))
	for _, root := range d.Jails().Roots(id) {
		n += Room(root)
	}
	return n
}

// Room returns how many bytes of the disk the files at path and below it take. A file with several names counts for
// each of them. What cannot be read counts as nothing.
func Room(path string) (n int64) {
	filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				n += st.Blocks * 512
			}
		}
		return nil
	})
	return n
}

// bootFile holds the boot id that the host had when the last daemon started.
const bootFile = "boot-id"

// NoteBoot stores the boot id of the host, and reports whether it was another one when a daemon started last.
func (d Dirs) NoteBoot(id string) (rebooted bool, err error) {
	path := filepath.Join(d.State, bootFile)
	before, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if err == nil && string(before) == id {
		return false, nil
	}
	return err == nil, blob.WriteFile(path, 0o600, func(w io.Writer) error { _, err := io.WriteString(w, id); return err })
}
