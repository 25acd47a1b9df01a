package secret

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"banger"
	"banger/internal/blob"
	"banger/internal/private"
	"banger/internal/untrusted"
)

// Files are the values of one VM: a directory of this user alone, with a file for each name.
type Files struct{ Dir string }

// Write keeps a value, in place of an earlier one.
func (f Files) Write(name string, value []byte) error {
	err := private.Make(f.Dir, 0o700)
	if err == nil {
		write := func(w io.Writer) error { _, err := w.Write(value); return err }
		err = blob.WriteFile(filepath.Join(f.Dir, name), 0o600, write)
	}
	if err != nil && banger.CodeOf(err) == banger.CodeInternal {
		return banger.Errorf(banger.CodeUnavailable, "the secret %s was not kept in %s: %w", name, f.Dir,
			banger.Cause(err))
	}
	return err
}

// WriteAll is Write for several values.
func (f Files) WriteAll(values map[string][]byte) error {
	for name, value := range values {
		if err := f.Write(name, value); err != nil {
			return err
		}
	}
	return nil
}

// Read returns those of the named values that the host still has.
func (f Files) Read(names []string) (map[string][]byte, error) {
	values := map[string][]byte{}
	for _, name := range names {
		value, err := untrusted.ReadFile(filepath.Join(f.Dir, name), MaxValue)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, banger.Errorf(banger.CodeUnavailable, "the secret %s cannot be read: %w", name, banger.Cause(err))
		}
		values[name] = value
	}
	return values, nil
}

// Given returns when the host got a value. It returns the zero time if the host does not have it.
func (f Files) Given(name string) time.Time {
	info, err := os.Lstat(filepath.Join(f.Dir, name))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime().UTC()
}

// Remove removes a value, if it is there.
func (f Files) Remove(name string) error {
	err := untrusted.RemoveAll(filepath.Join(f.Dir, name))
	if err == nil {
		err = blob.RemoveHalves(f.Dir) // what a write that was cut off has left
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return banger.Errorf(banger.CodeUnavailable, "the secret %s was not removed: %w", name, banger.Cause(err))
	}
	return nil
}

// CopyTo gives the named values to another VM.
func (f Files) CopyTo(to Files, names []string) error {
	values, err := f.Read(names)
	if err != nil {
		return err
	}
	return to.WriteAll(values)
}
