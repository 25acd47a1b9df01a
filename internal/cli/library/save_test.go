package library

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// TestASavedFileIsWholeOrNotThere checks that no part of the file has a name while it is written and after an error.
func TestASavedFileIsWholeOrNotThere(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	names := func() (list []string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			list = append(list, e.Name())
		}
		return list
	}
	broken := errors.New("the daemon went away")
	err := writeWhole(path, func(w io.Writer) error {
		io.WriteString(w, "half")
		return broken
	})
	if !errors.Is(err, broken) || len(names()) > 0 {
		t.Errorf("after the error %v there are %q", err, names())
	}
	for _, text := range []string{"first", "second, which takes its place"} {
		before := names()
		err := writeWhole(path, func(w io.Writer) error {
			_, err := io.WriteString(w, text)
			if len(names()) != len(before) {
				t.Errorf("while it is written there are %q", names())
			}
			return err
		})
		data, rerr := os.ReadFile(path)
		info, serr := os.Stat(path)
		if err != nil || rerr != nil || serr != nil || string(data) != text || info.Mode().Perm() != 0o644 ||
			len(names()) != 1 {
			t.Errorf("there is %q, in %q: %v, %v, %v", data, names(), err, rerr, serr)
		}
	}
}
