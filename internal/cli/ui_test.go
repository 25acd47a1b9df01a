package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"banger/internal/testing/hosttest"
)

var addressForm = regexp.MustCompile(`^http://127\.0\.0\.1:\d+/#token=[0-9a-f]{64}$`)

// TestTheUIHasAnAddress prints addresses, which differ, and closes the UI.
func TestTheUIHasAnAddress(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	one, two := h.must("ui", "--print"), h.must("ui", "--print")
	if !addressForm.MatchString(one) || !addressForm.MatchString(two) || one == two {
		t.Errorf("the addresses are %q and %q", one, two)
	}
	h.check(
		line{args: "ui --close"},
		line{args: "ui --print --close", code: 2, stderr: "banger: a UI that is closed has no address …"},
		line{args: "ui now", code: 2, stderr: "banger: …"})
}

// TestTheBrowserGetsAFile: all users see the arguments of a program, so the browser's have no secret.
func TestTheBrowserGetsAFile(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	bin := t.TempDir()
	script := "#!/bin/sh\necho \"$@\" > " + bin + "/args\n"
	hosttest.Check(t, os.WriteFile(filepath.Join(bin, "xdg-open"), []byte(script), 0o755))
	for range 2 { // the second removes the file of the first
		got := h.process([]string{"BROWSER=any", "PATH=" + bin + ":" + os.Getenv("PATH")}, "ui")
		address := strings.TrimSpace(got.stdout)
		if got.code != 0 || !addressForm.MatchString(address) {
			t.Fatalf("banger ui: %+v", got)
		}
		args, err := os.ReadFile(bin + "/args")
		hosttest.Check(t, err)
		path := strings.TrimSpace(string(args))
		info, err := os.Stat(path)
		hosttest.Check(t, err)
		page, err := os.ReadFile(path)
		hosttest.Check(t, err)
		if info.Mode().Perm() != 0o600 || !strings.Contains(string(page), `content="0; url=`+address+`"`) {
			t.Errorf("%s has the mode %o and %q", path, info.Mode(), page)
		}
	}
	files, err := filepath.Glob(h.Path("run") + "/ui-*.html")
	if err != nil || len(files) != 1 {
		t.Errorf("there are %v, %v", files, err)
	}
}
