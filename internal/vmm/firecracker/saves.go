package firecracker

import (
	"fmt"
	"os"
	"path/filepath"

	"banger/internal/untrusted"
	"banger/internal/vmm"
)

// saves are the files of snapshots that Firecracker has from its start, because it can open no others later: it is
// confined by then. It gets those into which it will write the VM, and those from which the VM goes on.
type saves struct {
	state, memory         string // names of those into which it writes, as it sees them
	fromState, fromMemory string // names of those from which the VM goes on
	files                 []*os.File
}

// saveFiles returns the paths of the files, in the order of saves.files. Those of a shared snapshot are not among them,
// because they are open already, and belong to no single VM.
func saveFiles(c vmm.Config) (paths []string) {
	paths = []string{filepath.Join(c.Save, vmm.NextState), filepath.Join(c.Save, vmm.NextRAM)}
	if c.Restore != "" && c.From == nil {
		paths = append(paths, filepath.Join(c.Restore, vmm.SnapshotState), filepath.Join(c.Restore, vmm.SnapshotRAM))
	}
	return paths
}

// openSaves opens the files for c, and makes those that are written. Without Config.Save, Firecracker opens the files
// itself. In a jail it has them by their names there. The caller closes the files when Firecracker has them.
func openSaves(c vmm.Config, j *jail) (s saves, err error) {
	if c.Save == "" {
		s.fromState, s.fromMemory = filepath.Join(c.Restore, vmm.SnapshotState), filepath.Join(c.Restore, vmm.SnapshotRAM)
		return s, nil
	}
	first := firstFile + len(c.WrapFiles) + len(c.Files())
	names := make([]string, 4)
	if c.From != nil {
		names[2], names[3] = sharedNames(c, j, first)
	}
	for i, path := range saveFiles(c) {
		var f *os.File
		if i < 2 {
			f, err = untrusted.Create(path, 0o600)
		} else {
			f, err = untrusted.Open(path, os.O_RDONLY, 0)
		}
		if err != nil {
			s.close()
			return s, err
		}
		s.files = append(s.files, f)
		if names[i] = fmt.Sprintf("/proc/self/fd/%d", first+i); j != nil {
			names[i] = "/" + filepath.Base(path)
		}
	}
	s.state, s.memory, s.fromState, s.fromMemory = names[0], names[1], names[2], names[3]
	return s, nil
}

// sharedNames returns the names of the state and the memory of a shared snapshot. Its files come last among those of c,
// whose first descriptor is before first.
func sharedNames(c vmm.Config, j *jail, first int) (state, memory string) {
	if j != nil {
		return "/" + vmm.SnapshotState, "/" + vmm.SnapshotRAM
	}
	return fmt.Sprintf("/proc/self/fd/%d", first-2), fmt.Sprintf("/proc/self/fd/%d", first-1)
}

func (s saves) close() {
	for _, f := range s.files {
		f.Close()
	}
}

// keep makes what Firecracker has written the files of a snapshot in dir.
func (s saves) keep(dir string) error {
	if s.state == "" {
		return nil
	}
	for from, to := range map[string]string{vmm.NextState: vmm.SnapshotState, vmm.NextRAM: vmm.SnapshotRAM} {
		if err := os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)); err != nil {
			return err
		}
	}
	return nil
}

// empty gives the room back that a snapshot which failed has taken.
func (s saves) empty(dir string) {
	if s.state == "" {
		return
	}
	for _, name := range []string{vmm.NextState, vmm.NextRAM} {
		if f, err := vmm.OpenOwn(filepath.Join(dir, name), os.O_WRONLY); err == nil {
			f.Truncate(0)
			f.Close()
		}
	}
}
