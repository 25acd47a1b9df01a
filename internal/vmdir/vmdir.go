// Package vmdir knows where the files of VMs are on the host, makes and removes their directories, and keeps a record of each VM
// beside its directory. It must not know what the files hold, nor whether a VM runs.
package vmdir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

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

// VMs is the directory of all VMs' directories and records. Their names are ids.
func (d Dirs) VMs() string { return filepath.Join(d.State, "vms") }

// VM is the durable directory of one VM.
func (d Dirs) VM(id string) string { return filepath.Join(d.VMs(), id) }

// AllSockets is the directory of all VMs' directories of sockets.
func (d Dirs) AllSockets() string { return filepath.Join(d.Run, "vms") }

// Sockets is the directory of one VM's sockets.
func (d Dirs) Sockets(id string) string { return filepath.Join(d.AllSockets(), id) }

// Disk is the file of a VM's writable disk.
func (d Dirs) Disk(id string) string { return filepath.Join(d.VM(id), diskFile) }

// HostKey is the file of a VM's SSH host key.
func (d Dirs) HostKey(id string) string { return filepath.Join(d.VM(id), hostKeyFile) }

// Files of a VM that last longer than one start.
const (
	diskFile    = "disk.ext4"
	hostKeyFile = "ssh_host_ed25519_key"
)

// Jails is where VMMs have their jails.
func (d Dirs) Jails() jail.Base { return jail.Base(filepath.Join(d.State, "jail")) }

// Lost is where directories that no row claims are set aside.
func (d Dirs) Lost() string { return filepath.Join(d.State, "lost") }

// MakeAll makes the directories in which those of VMs are.
func (d Dirs) MakeAll() error {
	for _, dir := range []string{d.State, d.Run, d.VMs(), d.AllSockets()} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return err
		}
	}
	return nil
}

// Make makes the directories of a VM that is to be started, or takes them back from its own
// user. Nothing is left in them of what a VMM that was taken over may have made there.
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

// CleanRun removes what only a running VM has.
func (d Dirs) CleanRun(id string) {
	d.Jails().Remove(id)
	untrusted.RemoveAll(d.Sockets(id))
	os.Remove(filepath.Join(d.VM(id), "ram")) // of a version that had the guest's memory there
}

// Sync makes the names of a VM's files durable.
func (d Dirs) Sync(id string) error { return errors.Join(blob.Sync(d.VM(id)), blob.Sync(d.VMs())) }

// Remove deletes whatever a VM has on the host, durably: files that came back after a power cut would be nobody's when
// the row is gone.
func (d Dirs) Remove(id string) error {
	err := os.Remove(recordPath(d.VMs(), id))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(d.Jails().Remove(id), untrusted.RemoveAll(d.Sockets(id)), untrusted.RemoveAll(d.VM(id)), err, blob.Sync(d.VMs()))
}

// Unknown returns the VMs that have a directory and are not in known.
func (d Dirs) Unknown(known map[string]bool) (ids []string, err error) {
	entries, err := os.ReadDir(d.VMs())
	for _, e := range entries {
		if _, ok := known[e.Name()]; !ok && banger.ValidID(e.Name()) {
			ids = append(ids, e.Name())
		}
	}
	return ids, err
}

// Sweep removes what only running VMs have of all VMs for which kept is false.
func (d Dirs) Sweep(kept map[string]bool) (err error) {
	for _, id := range d.Jails().IDs() {
		if banger.ValidID(id) && !kept[id] {
			err = errors.Join(err, d.Jails().Remove(id))
		}
	}
	entries, rerr := os.ReadDir(d.AllSockets())
	err = errors.Join(err, rerr)
	for _, e := range entries {
		if banger.ValidID(e.Name()) && !kept[e.Name()] {
			err = errors.Join(err, untrusted.RemoveAll(d.Sockets(e.Name())))
		}
	}
	return err
}

// SetAside moves the directory of a VM that no row claims, and its record, out of the way. Nothing of it is removed.
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
