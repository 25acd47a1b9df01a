package image

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger"
)

// foreign makes an ext4 file that is not registered yet.
func foreign(t *testing.T) string {
	t.Helper()
	s := openStore(t)
	img := ensure(t, s, "oci:"+ociDir(t, plain(file("f", "of the host"))))
	at := filepath.Join(t.TempDir(), "foreign.ext4")
	if _, err := copyRootfs(context.Background(), s.RootfsPath(img.Digest), at); err != nil {
		t.Fatal(err)
	}
	return at
}

func TestARegisteredFileStaysWhereItIs(t *testing.T) {
	at, s := foreign(t), openStore(t)
	img, err := s.Register(context.Background(), "mine:v1", at, "kernel-1")
	if err != nil {
		t.Fatal(err)
	}
	found, err := s.Find("mine:v1")
	if err != nil || found.Digest != img.Digest || found.Kernel != "kernel-1" || s.RootfsPath(img.Digest) != at {
		t.Errorf("%+v, %v, at %s", found, err, s.RootfsPath(img.Digest))
	}
	if err := s.Ready(context.Background(), img.Digest, banger.Discard); err != nil {
		t.Error(err)
	}
	if err := s.Remove("mine:v1", noVM); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(at); err != nil {
		t.Errorf("the image is gone and the host's file with it: %v", err)
	}
	wantOnly(t, s)
}

// TestARegisteredFileMustNotChange checks that a change of the file is reported before a VM uses
// it.
func TestARegisteredFileMustNotChange(t *testing.T) {
	for name, change := range map[string]func(string) error{
		"touched": func(at string) error { return os.Chtimes(at, time.Time{}, time.Unix(1, 0)) },
		"longer":  func(at string) error { return os.Truncate(at, 65<<30) },
		"gone":    os.Remove,
		"another": func(at string) error { return os.WriteFile(at, []byte("text"), 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			at, s := foreign(t), openStore(t)
			img, err := s.Register(context.Background(), "mine:v1", at, "")
			if err != nil {
				t.Fatal(err)
			}
			if err := change(at); err != nil {
				t.Fatal(err)
			}
			if err := s.Ready(context.Background(), img.Digest, banger.Discard); banger.CodeOf(err) != banger.CodeConflict {
				t.Errorf("the error is %v", err)
			}
			if _, err := s.Promote(context.Background(), "mine:v1"); banger.CodeOf(err) != banger.CodeConflict {
				t.Errorf("it can be promoted: %v", err)
			}
		})
	}
}

func TestAPromotedFileIsOurs(t *testing.T) {
	at, s := foreign(t), openStore(t)
	img, err := s.Register(context.Background(), "mine:v1", at, "")
	if err != nil {
		t.Fatal(err)
	}
	want := listing(t, at)
	if _, err := s.Promote(context.Background(), "mine:v1"); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(at); err != nil {
		t.Fatal(err)
	}
	if err := s.Ready(context.Background(), img.Digest, banger.Discard); err != nil {
		t.Error(err)
	}
	if listing(t, s.RootfsPath(img.Digest)) != want {
		t.Error("the copy is another file system")
	}
	found, err := s.Find("mine:v1")
	if err != nil || found.Foreign != "" || found.Size == 0 || found.Size > 16<<20 {
		t.Errorf("%+v, %v", found, err)
	}
	if _, err := s.Promote(context.Background(), "mine:v1"); banger.CodeOf(err) != banger.CodeConflict {
		t.Errorf("twice: %v", err)
	}
}

func TestFilesThatCannotBeRegistered(t *testing.T) {
	work := t.TempDir()
	text := filepath.Join(work, "text")
	if err := os.WriteFile(text, []byte(strings.Repeat("text", 1000)), 0o644); err != nil {
		t.Fatal(err)
	}
	good := foreign(t)
	for name, c := range map[string]struct{ target, at, words string }{
		"nothing there":   {"mine:v1", filepath.Join(work, "none"), "no such file"},
		"a directory":     {"mine:v1", work, "not a regular file"},
		"text":            {"mine:v1", text, "does not contain an ext4"},
		"a device":        {"mine:v1", "/dev/null", "not a regular file"},
		"a relative path": {"mine:v1", "text", "not absolute"},
		"a bad name":      {"UPPER", good, "reference"},
		"a taken name":    {"debian-bookworm", good, "cannot be the name"},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			_, err := s.Register(context.Background(), c.target, c.at, "")
			wantFailure(t, s, err, banger.CodeInvalid, c.words)
		})
	}
}
