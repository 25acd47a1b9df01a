package firecracker

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"banger/internal/vmm"
)

// spareDrives is the number of drives that a VM has for later. Firecracker adds no drive to a VM that runs, but opens
// another file for one that is there (PATCH /drives/{id}). A spare drive has a size of 0, so guests do not list it.
const spareDrives = 2

// privateSpares is a key of vmm.Manifest.Private. Its value is the number of spare drives. A VM of a banger that had
// none goes on without them.
const privateSpares = "spares"

// spareName returns the name of a spare drive, which is also that of its file in the VM's directory.
func spareName(i int) string { return fmt.Sprintf("spare%d", i) }

// spares returns n spare drives of a VM, whose directory is dir.
func spares(dir string, n int) (list []vmm.Drive) {
	for i := range n {
		list = append(list, vmm.Drive{Serial: spareName(i), Path: filepath.Join(dir, spareName(i))})
	}
	return list
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

// sparesOf returns the number of spare drives that the VM of a snapshot had.
func sparesOf(m vmm.Manifest) int {
	n, err := strconv.Atoi(m.Private[privateSpares])
	if err != nil || n < 0 || n > spareDrives {
		return 0
	}
	return n
}
