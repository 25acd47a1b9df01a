package store

import (
	"errors"

	"banger"
	"banger/internal/reserve"
)

// Explain gives an error of a database on a full or broken disk, in the directory dir, the right code.
func Explain(err error, dir string) error {
	if banger.CodeOf(err) != banger.CodeInternal {
		return err
	}
	if errors.Is(err, ErrDisk) {
		return banger.Errorf(banger.CodeDisk, "the disk of %s failed: %w", dir, err).WithHint("see the kernel's log: dmesg")
	}
	return reserve.Explain(err, dir)
}
