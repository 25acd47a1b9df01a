package vmm

import (
	"fmt"
	"os"
	"path/filepath"
)

// CheckReach returns an error if some user cannot read the file at path or cannot reach it through
// its directories. The error names the file or directory that is closed. A VMM may run as a user
// that owns no files, so every file that it opens by path must be readable by all.
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
