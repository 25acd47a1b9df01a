package firecracker

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"banger/internal/vmm"
)

// spareDrives is the number of drives that a VM has for later. Firecracker adds no drive to a VM that runs, but opens
// another file for one that is there (PATCH /drives/{id}). A spare drive has a size of 0, so guests do not list it.
const spareDrives = 2

// spareName returns the name of a spare drive, which is also that of its file in the VM's directory.
func spareName(i int) string { return fmt.Sprintf("spare%d", i) }

// spares returns n spare drives of a VM, whose directory is dir.
func spares(dir string, n int) (list []vmm.Drive) {
	for i := range n {
		list = append(list, vmm.Drive{Serial: spareName(i), Path: filepath.Join(dir, spareName(i))})
	}
	return list
}

// allDrives returns the drives of c and then the spare ones, in the order in which the guest finds them.
func allDrives(c vmm.Config, o options) []vmm.Drive {
	return append(slices.Clip(c.Drives), spares(c.Dir, o.spares)...)
}

// makeSpares makes the empty files of n spare drives. Whatever an earlier VMM has left under their names is removed.
func makeSpares(dir string, n int) (paths []string, err error) {
	removeSpares(dir)
	for _, d := range spares(dir, n) {
		f, err := os.OpenFile(d.Path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return nil, fmt.Errorf("making the file of a spare drive: %w", err)
		}
		f.Close()
		paths = append(paths, d.Path)
	}
	return paths, nil
}

func removeSpares(dir string) {
	for _, d := range spares(dir, spareDrives) {
		os.Remove(d.Path)
	}
}
