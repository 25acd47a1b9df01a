package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTheDoubleIsStrict: what the jailer refuses before it does anything.
func TestTheDoubleIsStrict(t *testing.T) {
	dir := t.TempDir()
	program, link := filepath.Join(dir, "firecracker-v1"), filepath.Join(dir, "link")
	if err := os.WriteFile(program, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(program, link); err != nil {
		t.Fatal(err)
	}
	with := func(more ...string) []string {
		return append([]string{"--id", "a-1", "--exec-file", link, "--uid", "5", "--gid", "6", "--chroot-base-dir", dir},
			more...)
	}
	for name, c := range map[string]struct {
		args []string
		err  string
	}{
		"what is right":             {with("--", "--api-sock", "/s"), ""},
		"an unknown argument":       {with("--fast"), "flag provided but not defined"},
		"an id with a slash":        {with("--id", "a/b"), "Invalid instance ID"},
		"no user":                   {[]string{"--id", "a"}, "'uid' or 'gid' required"},
		"a negative user":           {with("--uid", "-1"), "invalid value"},
		"version 3 of groups":       {with("--cgroup-version", "3"), "invalid cgroup version"},
		"a group out of its place":  {with("--parent-cgroup", "../x"), "parent cgroup path is invalid"},
		"a program that is not":     {with("--exec-file", filepath.Join(dir, "none")), "Failed to canonicalize"},
		"a program that is no file": {with("--exec-file", dir), "is not a file"},
		"a base that is none":       {with("--chroot-base-dir", program), "is not a directory"},
	} {
		a, err := parse(c.args)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, not an error with %q", name, err, c.err)
		}
		if err == nil && (a.program != program || strings.Join(a.rest, " ") != "--api-sock /s") {
			t.Errorf("%s: it runs %s with %q", name, a.program, a.rest)
		}
	}
}
