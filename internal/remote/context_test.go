package remote_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger"
	"banger/internal/remote"
)

// TestAnAddressIsNeverAnOption: what a context may be, and that no part of one is an option of ssh.
func TestAnAddressIsNeverAnOption(t *testing.T) {
	for _, c := range []struct {
		context remote.Context
		ok      bool
	}{
		{remote.Context{Name: "lab", Address: "ssh://lab"}, true},
		{remote.Context{Name: "lab", Address: "ssh://me@lab.example:2222"}, true},
		{remote.Context{Name: "lab", Address: "ssh://[2001:db8::1]"}, true},
		{remote.Context{Name: "lab", Address: "ssh://lab", Program: "/opt/banger"}, true},
		{remote.Context{Name: "local", Address: "ssh://lab"}, false},
		{remote.Context{Name: "-x", Address: "ssh://lab"}, false},
		{remote.Context{Name: "../up", Address: "ssh://lab"}, false},
		{remote.Context{Name: "lab", Address: "lab"}, false},
		{remote.Context{Name: "lab", Address: "http://lab"}, false},
		{remote.Context{Name: "lab", Address: "ssh://-oProxyCommand=id"}, false},
		{remote.Context{Name: "lab", Address: "ssh://-l@lab"}, false},
		{remote.Context{Name: "lab", Address: "ssh://me:secret@lab"}, false},
		{remote.Context{Name: "lab", Address: "ssh://lab:0"}, false},
		{remote.Context{Name: "lab", Address: "ssh://lab/run/x.sock"}, false},
		{remote.Context{Name: "lab", Address: "ssh://lab", Program: "banger; id"}, false},
	} {
		if err := c.context.Check(); (err == nil) != c.ok || !c.ok && banger.CodeOf(err) != banger.CodeInvalid {
			t.Errorf("%+v: %v", c.context, err)
		}
	}
}

// TestContextsAreKept adds, uses and removes contexts, and checks what is refused.
func TestContextsAreKept(t *testing.T) {
	f := remote.File{Path: filepath.Join(t.TempDir(), "c", "contexts.json")}
	check := func(err error, want string) {
		t.Helper()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Fatalf("the error is %v, and not %q", err, want)
		}
	}
	lab := remote.Context{Name: "lab", Address: "ssh://lab"}
	check(f.Add(remote.Context{Name: "other", Address: "ssh://other"}), "")
	check(f.Add(lab), "")
	check(f.Add(lab), "already")
	check(f.Use("none"), "no context")
	check(f.Use("lab"), "")
	check(f.Remove("lab"), "current")
	list, current, err := f.List()
	check(err, "")
	if len(list) != 2 || list[0] != lab || current != "lab" {
		t.Errorf("they are %+v, and the current one is %q", list, current)
	}
	check(f.Use(remote.Local), "")
	check(f.Remove("lab"), "")
	_, err = f.Get("lab")
	check(err, "no context")
	if info, err := os.Stat(f.Path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info, err)
	}
	check(os.WriteFile(f.Path, []byte(`{"contexts":[{"name":"a","address":"ssh://-x"}]}`), 0o600), "")
	_, _, err = f.List()
	check(err, "cannot be read")
}
