package workspace

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestDifferencesSayWhatAFileWasAndIs: each kind of change has both sides, and says whether they have lines.
func TestDifferencesSayWhatAFileWasAndIs(t *testing.T) {
	user(t, "")
	home := Home{Dir: t.TempDir()}
	repo := repository(t, `seq 50 >moved; seq 9 >text; seq 9 >mode; printf 'a\0b' >binary; ln -s text link; echo x >gone
		git add .; git commit -qm first`)
	record, before := bring(t, home, Options{Source: repo, Depth: 50})
	after := t.TempDir()
	sh(t, after, "cp -a "+before+"/. ."+`; mv moved way; echo 51 >>way; echo 10 >>text; chmod 755 mode; printf 'a\0c' >binary
		rm link gone; ln -s mode link; printf 'odd' >"$(printf 'odd\377\n:x')"`)
	c, err := home.Capture(t.Context(), record, layer(t, before, after))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	list, err := c.Differences(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, d := range list {
		fmt.Fprintf(&got, "%.1s %q %q %s-%s +%d-%d %v\n", d.Status, d.From, d.Path, d.Before.Mode, d.After.Mode, d.Added,
			d.Removed, d.Binary)
	}
	want := `M "" "binary" 100644-100644 +0-0 true
D "" "gone" 100644- +0-1 false
M "" "link" 120000-120000 +1-1 false
M "" "mode" 100644-100755 +0-0 false
A "" "odd\xff\n:x" -100644 +1-0 false
M "" "text" 100644-100644 +1-0 false
R "moved" "way" 100644-100644 +1-0 false
`
	if got.String() != want {
		t.Errorf("the differences are\n%s\nnot\n%s", &got, want)
	}
	for _, d := range list {
		if d.Path != "binary" {
			continue
		}
		if got, err := c.Content(t.Context(), d.After, 3); err != nil || got.Text || string(got.Data) != "a\x00c" {
			t.Errorf("the binary is %+v, %v", got, err)
		}
		if got, err := c.Content(t.Context(), d.After, 2); err != nil || got.Data != nil || got.Size != 3 {
			t.Errorf("of a larger file there is %+v, %v", got, err)
		}
	}
}

// TestAQuarantineOfAKilledProcessGoes: another capture of any workspace removes it, once it is a day old.
func TestAQuarantineOfAKilledProcessGoes(t *testing.T) {
	user(t, "")
	home := Home{Dir: t.TempDir()}
	first, _ := bring(t, home, Options{Source: repository(t, "echo x >file; git add .; git commit -qm first")})
	second, before := bring(t, home, Options{Source: repository(t, "echo y >file; git add .; git commit -qm first")})
	old := filepath.Join(home.storeDir(first.ID), "tmp-quarantine-1")
	fresh := filepath.Join(home.storeDir(first.ID), "tmp-quarantine-2")
	for _, dir := range []string{old, fresh} {
		if err := os.MkdirAll(filepath.Join(dir, "objects"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	day := time.Now().Add(-25 * time.Hour)
	if err := os.Chtimes(old, day, day); err != nil {
		t.Fatal(err)
	}
	c, err := home.Capture(t.Context(), second, layer(t, before, before))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Errorf("the old one is there: %v", err)
	}
	if _, err := os.Stat(fresh); err != nil {
		t.Errorf("one that may be in use is gone: %v", err)
	}
}
