package blob

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// TestWriteFile checks that a file is replaced as a whole. If its writer fails, the old file stays
// and no other file is left.
func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	broken := errors.New("broken")
	for _, step := range []struct {
		text string
		err  error
		want string
	}{
		{"first", nil, "first"},
		{"half of the sec", broken, "first"},
		{"second", nil, "second"},
	} {
		err := WriteFile(path, 0o644, func(w io.Writer) error {
			io.WriteString(w, step.text)
			return step.err
		})
		got, _ := os.ReadFile(path)
		entries, _ := os.ReadDir(dir)
		if !errors.Is(err, step.err) || string(got) != step.want || len(entries) != 1 {
			t.Errorf("writing %q gives %v, %q and %d files", step.text, err, got, len(entries))
		}
	}
	if err := WriteFile(filepath.Join(dir, "nowhere", "f"), 0o644, func(io.Writer) error {
		return nil
	}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a directory that is not there gives %v", err)
	}
	if err := WriteJSON(path, make(chan int)); err == nil {
		t.Error("what JSON cannot say was written")
	}
}
