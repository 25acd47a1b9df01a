package vmm

import (
	"fmt"
	"os"
	"path/filepath"
)

// CheckReach returns an error if not every user may read a file, or may not come to it, and names
// what is closed. What a VMM reads by its path, a user reads who owns nothing.
func CheckReach(path string) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	info, err := os.Stat(real)
	if err != nil {
		return err
	}
	if info.Mode()&0o004 == 0 {
		return fmt.Errorf("the file %s is closed to the VM's own user: chmod o+r, or put it elsewhere", real)
	}
	for dir := filepath.Dir(real); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if info.Mode()&0o001 == 0 {
			return fmt.Errorf(
				"the directory %s is closed to the VM's own user, who needs %s: chmod o+x, or put the file elsewhere",
				dir, real)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}
