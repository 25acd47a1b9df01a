package agent

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/cli/command"
	"banger/internal/host"
)

// newApp returns a run of the CLI with a configuration, without a daemon.
func newApp(t *testing.T, config string) (a *command.App, stdout *bytes.Buffer) {
	t.Helper()
	dir := t.TempDir()
	paths := host.Paths{State: filepath.Join(dir, "state"), Run: filepath.Join(dir, "run"),
		Config: filepath.Join(dir, "config.toml")}
	if err := os.WriteFile(paths.Config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout = new(bytes.Buffer)
	a = &command.App{Stdout: stdout, Stderr: new(bytes.Buffer)}
	a.Reach(paths)
	return a, stdout
}

// ours is a configuration with an agent of the user's.
const ours = `[agents.ours]
description = "Our own"
command = ["ours"]
acp = ["ours", "acp"]
[agents.ours.bin]
ours = "node_modules/ours/cli.js"
[[agents.ours.package]]
name = "ours"
version = "1.2.3"
integrity = "sha512-KHsob+Fv9YerATvYujMbiyJqnRCvLtrcr/eTNqRqiOSGp97EOiRP1yP47+knGgQ/xnc3XY8xzkW587dlZzNqRA=="
`

func execute(t *testing.T, a *command.App, line string) error {
	t.Helper()
	c := New(a)
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetArgs(strings.Fields(line))
	return c.ExecuteContext(t.Context())
}

// TestAgentsAreListed checks banger's agents and the user's own, and which of them have a login here.
func TestAgentsAreListed(t *testing.T) {
	a, _ := newApp(t, ours)
	login := filepath.Join(a.Paths.State, "agents", "codex.tar")
	if err := os.MkdirAll(filepath.Dir(login), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(login, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	rows, err := list(a)
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]row{}
	for _, r := range rows {
		byName[r.Name] = r
	}
	if r := byName["ours"]; !r.Own || !r.ACP || r.Serve || r.Kept || r.Version != "1.2.3" || r.Description != "Our own" {
		t.Errorf("the user's is %+v", r)
	}
	if r := byName["codex"]; r.Own || !r.Kept || r.Version == "" {
		t.Errorf("codex is %+v", r)
	}
	if r := byName["claude-code"]; r.Own || r.Kept {
		t.Errorf("claude-code is %+v", r)
	}
	if _, ok := byName["node"]; ok {
		t.Error("Node.js is listed, which is no agent")
	}
}

func TestTheListOfAgents(t *testing.T) {
	a, stdout := newApp(t, ours)
	if err := execute(t, a, "ls"); err != nil || !strings.Contains(stdout.String(), "ours") {
		t.Errorf("the table is %v\n%s", err, stdout)
	}
	stdout.Reset()
	if err := execute(t, a, "ls --format json"); err != nil || !strings.Contains(stdout.String(), `"logged_in": false`) {
		t.Errorf("the JSON is %v\n%s", err, stdout)
	}
}

// TestUnknownAgents checks that a name is refused before the daemon is asked anything, with the nearest one.
func TestUnknownAgents(t *testing.T) {
	for line, want := range map[string]string{
		"run claude-cod":  "claude-code",
		"login nonesuch":  "nonesuch",
		"serve opencod":   "opencode",
		"run node":        "node",
		"run ../codex":    "../codex",
		"run":             "",
		"login codex one": "",
	} {
		t.Run(line, func(t *testing.T) {
			a, _ := newApp(t, ours)
			err := execute(t, a, line)
			if err == nil || !strings.Contains(err.Error(), want) || banger.CodeOf(err) == banger.CodeUnavailable {
				t.Errorf("it says %v, want %q", err, want)
			}
		})
	}
}

// TestABrokenConfigurationStopsAgents checks that nothing runs by a file that is wrong.
func TestABrokenConfigurationStopsAgents(t *testing.T) {
	a, _ := newApp(t, "[agents.ours]\ncomand = 1\n")
	for _, line := range []string{"ls", "run codex"} {
		if err := execute(t, a, line); err == nil || !strings.Contains(err.Error(), "config.toml:2") {
			t.Errorf("%s says %v", line, err)
		}
	}
}

// TestOnlyFilesOfALoginAreKept checks what of a hostile guest's tar is kept: files and directories below the names of
// the recipe, for their owner alone.
func TestOnlyFilesOfALoginAreKept(t *testing.T) {
	when := time.Unix(1_800_000_000, 0)
	for _, test := range []struct {
		name string // in the recipe
		in   tar.Header
		want string // "" if it is left out
	}{
		{".codex/auth.json", tar.Header{Typeflag: tar.TypeReg, Name: "auth.json", Mode: 0o644}, "0 0600 .codex/auth.json"},
		{".codex", tar.Header{Typeflag: tar.TypeDir, Name: ".codex/", Mode: 0o755}, "5 0700 .codex"},
		{".codex", tar.Header{Typeflag: tar.TypeReg, Name: ".codex/a", Mode: 0o6777}, "0 0700 .codex/a"},
		{".codex", tar.Header{Typeflag: tar.TypeReg, Name: ".codex/sub/a", Mode: 0o400}, "0 0400 .codex/sub/a"},
		{".codex", tar.Header{Typeflag: tar.TypeReg, Name: "./.codex/a", Mode: 0o600}, "0 0600 .codex/a"},
		{".codex", tar.Header{Typeflag: tar.TypeReg, Name: "other/a", Mode: 0o600}, "0 0600 .codex/a"},
		{".codex", tar.Header{Typeflag: tar.TypeReg, Name: ".codex/../../.bashrc"}, "0 0000 .codex/.bashrc"},
		{".codex", tar.Header{Typeflag: tar.TypeReg, Name: ".codex/../.bashrc"}, "0 0000 .codex"},
		{".codex", tar.Header{Typeflag: tar.TypeReg, Name: "/.codex/../../x"}, "0 0000 .codex/x"},
		{".codex", tar.Header{Typeflag: tar.TypeSymlink, Name: ".codex/a", Linkname: "/etc/passwd"}, ""},
		{".codex", tar.Header{Typeflag: tar.TypeLink, Name: ".codex/a", Linkname: ".ssh/id"}, ""},
		{".codex", tar.Header{Typeflag: tar.TypeChar, Name: ".codex/a", Devmajor: 1}, ""},
		{".codex", tar.Header{Typeflag: tar.TypeFifo, Name: ".codex/a"}, ""},
	} {
		t.Run(test.in.Name, func(t *testing.T) {
			var out bytes.Buffer
			w := tar.NewWriter(&out)
			test.in.ModTime, test.in.Uid = when, 4711
			if test.in.Typeflag == tar.TypeReg {
				test.in.Size = 1
			}
			ok, err := add(w, &test.in, strings.NewReader("x"), test.name)
			if err != nil {
				t.Fatal(err)
			}
			w.Close()
			h, err := tar.NewReader(&out).Next()
			if err == io.EOF {
				if test.want != "" || ok {
					t.Errorf("it is left out (%v), want %s", ok, test.want)
				}
				return
			}
			if got := fmt.Sprintf("%c %04o %s", h.Typeflag, h.Mode, h.Name); got != test.want || h.Uid != 0 ||
				ok != (test.in.Typeflag == tar.TypeReg) {
				t.Errorf("%s of user %d is kept (%v), want %s", got, h.Uid, ok, test.want)
			}
			if !inside(h.Name, test.name) {
				t.Errorf("%s is not below %s", h.Name, test.name)
			}
		})
	}
}

func inside(name, dir string) bool {
	name = path.Clean(name)
	return name == dir || strings.HasPrefix(name, dir+"/")
}

func TestDirectoriesAboveALoginAreMadeOnce(t *testing.T) {
	var out bytes.Buffer
	w, made := tar.NewWriter(&out), map[string]bool{".": true}
	for _, dir := range []string{".", ".config/agent", ".config/agent", ".config/other"} {
		if err := parents(w, dir, made); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	var got []string
	for r := tar.NewReader(&out); ; {
		h, err := r.Next()
		if err != nil {
			break
		}
		got = append(got, fmt.Sprintf("%s %o", h.Name, h.Mode))
	}
	if want := ".config/ 700, .config/agent/ 700, .config/other/ 700"; strings.Join(got, ", ") != want {
		t.Errorf("they are %q, want %q", got, want)
	}
}
