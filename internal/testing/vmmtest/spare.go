package vmmtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/guest"
	"banger/internal/vmm"
)

// Spares checks that each spare place of a VM that has started from a template takes a disk while the VM runs. fill
// puts the disk that is a file into place i.
func Spares(t *testing.T, d vmm.Driver, config func(*testing.T) vmm.Config, places int,
	fill func(t *testing.T, vm *VM, i int, disk string)) {
	dir := cut(t, d, opened(t, config(t)))
	c := opened(t, config(t))
	vm := StartShared(t, d, c, dir)
	Configure(t, vm, guest.Config{Hostname: "spares"})
	for i := range places {
		path, sectors := filepath.Join(filepath.Dir(c.Dir), fmt.Sprint("more", i)), 2048+8*i // no two have one size
		content := strings.Repeat(fmt.Sprintf("%-511d\n", i), sectors)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		fill(t, vm, i, path)
		if out := Output(t, vm, "/bin/disk", fmt.Sprint(sectors)); out != content {
			t.Errorf("of the disk in place %d, the guest reads %d bytes, which begin with %.20q", i, len(out), out)
		}
	}
}
