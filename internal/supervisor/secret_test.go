package supervisor_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banger"
	"banger/internal/supervisor"
)

// canary is a value that must be in no file but its own.
const canary = "canary-5b1f0c2e"

// secret returns the path of the host's file of a secret.
func (h *host) secret(id, name string) string {
	return filepath.Join(h.path("run/secrets"), id, name)
}

// holding returns the files of the daemon's directories that have the canary, without those of a guest's memory.
func (h *host) holding() (list []string) {
	h.t.Helper()
	out, _ := exec.Command("grep", "-rlsF", canary, h.Dir).Output() // it skips holes
	for path := range strings.Lines(string(out)) {
		if !strings.Contains(path, "/run/vms/") {
			list = append(list, strings.TrimSpace(path))
		}
	}
	return list
}

// digest is a script that tells the variable TOKEN, without its value.
const digest = `printf %s "$TOKEN" | sha256sum | cut -c1-16`

// digestOf is what digest says of the canary.
func digestOf(value string) string {
	return fmt.Sprintf("%x", sha256.Sum256([]byte(value)))[:16] + "\n"
}

// withSecret returns a VM whose main command tells its secret by a digest.
func (h *host) withSecret(s *supervisor.Supervisor, name string) banger.VM {
	h.t.Helper()
	spec := h.command(name, digest+"; "+forever)
	spec.SecretEnv = []string{"TOKEN"}
	vm, err := s.Create(h.ctx(), spec, map[string][]byte{"TOKEN": []byte(canary + "\n")}, true, banger.Discard)
	check(h.t, err)
	return vm
}

// TestASecretIsInNoFileButItsOwn: the main command, a command and a session have it, also after a restart of the VM and
// of the daemon. It goes with the VM.
func TestASecretIsInNoFileButItsOwn(t *testing.T) {
	h := newHost(t)
	h.Templates()
	s := h.daemon()
	vm := h.withSecret(s, "box")
	file := h.secret(vm.ID, "TOKEN")
	want := func() {
		t.Helper()
		if list := h.holding(); !slices.Equal(list, []string{file}) {
			t.Errorf("the value is in %q", list)
		}
	}
	h.templates(s, 1)
	want()
	for path, mode := range map[string]fs.FileMode{file: 0o600, filepath.Dir(file): 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	h.await("the main command has its secret", func() bool { return h.said(s, "box", 1) == digestOf(canary) })
	command := banger.Exec{Args: []string{"/bin/sh", "-c", digest}, Secrets: []string{"TOKEN"}}
	works := func() {
		t.Helper()
		conn, err := s.Guests().Exec(h.ctx(), "box", command)
		check(t, err)
		if out, _ := h.output(conn); out != digestOf(canary) {
			t.Errorf("a command has %q", out)
		}
	}
	works()
	s.Close()
	s = h.daemon()
	works()
	session, err := s.Guests().Sessions().Start(h.ctx(), "box", banger.SessionSpec{Name: "one", Command: command})
	check(t, err)
	if !slices.Equal(session.Command.Secrets, []string{"TOKEN"}) {
		t.Errorf("the session is %+v", session)
	}
	if row := h.row(vm.ID); !slices.Equal(row.Secrets, []string{"TOKEN"}) {
		t.Errorf("the row has %q", row.Secrets)
	}
	want()
	check(t, s.Remove(h.ctx(), "box", true))
	if _, err := os.Stat(filepath.Dir(file)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its directory is left: %v", err)
	}
}

// TestSecretsComeAndGo while a VM runs and while it rests.
func TestSecretsComeAndGo(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	vm := h.run(s, h.command("box", forever))
	c := s.Custody()
	has := func(name, value string) bool {
		t.Helper()
		conn, err := s.Guests().Exec(h.ctx(), "box", banger.Exec{Args: []string{"/bin/sh", "-c", "echo $" + name},
			Secrets: []string{name}})
		if err != nil {
			wantCode(t, err, banger.CodeConflict)
			return false
		}
		out, _ := h.output(conn)
		return out == value+"\n"
	}
	check(t, c.Set(h.ctx(), "box", "A", []byte("one")))
	check(t, c.Set(h.ctx(), "box", "A", []byte("two")))
	check(t, c.Set(h.ctx(), "box", "B", []byte("three")))
	if !has("A", "two") || !has("B", "three") || has("C", "") {
		t.Error("a command has other secrets")
	}
	check(t, c.Remove(h.ctx(), "box", "A"))
	if has("A", "") {
		t.Error("a secret is there that was removed")
	}
	check(t, errOf(s.Stop(h.ctx(), "box", 0)))
	check(t, c.Set(h.ctx(), "box", "A", []byte("four")))
	check(t, c.Remove(h.ctx(), "box", "B"))
	check(t, errOf(s.Start(h.ctx(), "box", false, false, banger.Discard)))
	if !has("A", "four") || has("B", "") {
		t.Error("after a start a command has other secrets")
	}
	list, err := c.List("box")
	check(t, err)
	if len(list) != 1 || list[0].Name != "A" || list[0].Given.IsZero() {
		t.Errorf("there are %+v", list)
	}
	wantCode(t, c.Remove(h.ctx(), "box", "B"), banger.CodeNotFound)
	wantCode(t, c.Set(h.ctx(), "box", "a-b", nil), banger.CodeInvalid)
	wantCode(t, c.Set(h.ctx(), "box", "A", make([]byte, 64<<10+1)), banger.CodeInvalid)
	check(t, errOf(s.Pause(h.ctx(), "box")))
	wantCode(t, c.Set(h.ctx(), "box", "C", nil), banger.CodeConflict)
	if row := h.row(vm.ID); !slices.Equal(row.Secrets, []string{"A"}) {
		t.Errorf("the row has %q", row.Secrets)
	}
}

// TestALostSecret: after a reboot of the host the VM starts without it, and what wants it says so.
func TestALostSecret(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	vm := h.run(s, h.command("box", forever))
	check(t, s.Custody().Set(h.ctx(), "box", "TOKEN", []byte(canary)))
	check(t, errOf(s.Stop(h.ctx(), "box", 0)))
	check(t, os.RemoveAll(h.path("run/secrets")))
	check(t, errOf(s.Start(h.ctx(), "box", false, false, banger.Discard)))
	list, err := s.Custody().List("box")
	if err != nil || len(list) != 1 || !list[0].Given.IsZero() {
		t.Errorf("there are %+v, %v", list, err)
	}
	_, err = s.Guests().Sessions().Start(h.ctx(), "box", banger.SessionSpec{Name: "one",
		Command: banger.Exec{Args: []string{"true"}, Secrets: []string{"TOKEN"}}})
	if banger.CodeOf(err) != banger.CodeConflict || !strings.Contains(err.Error(), "does not have the secret") {
		t.Errorf("the error is %v", err)
	}
	check(t, s.Custody().Set(h.ctx(), "box", "TOKEN", []byte(canary)))
	check(t, os.Chmod(h.secret(vm.ID, "TOKEN"), 0o600))
}

// TestMemoryWithSecretsIsNotWritten, unless the user allows it. The VMM of these tests writes no VM down, so what is
// allowed fails later.
func TestMemoryWithSecretsIsNotWritten(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	h.withSecret(s, "box")
	b := s.Snapshots()
	refused := func(name string, err error) {
		t.Helper()
		var e *banger.Error
		if !errors.As(err, &e) || e.Code != banger.CodeConflict || !strings.Contains(err.Error(), "secrets TOKEN") ||
			!strings.Contains(e.Hint, "--with-secrets") || !strings.Contains(e.Hint, "banger secret rm box TOKEN") {
			t.Errorf("%s: %v", name, err)
		}
	}
	tried := func(name string, err error) {
		t.Helper()
		if banger.CodeOf(err) != banger.CodeUnavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	refused("suspend", errOf(s.Suspend(h.ctx(), "box", false)))
	tried("suspend", errOf(s.Suspend(h.ctx(), "box", true)))
	refused("snapshot", errOf(b.Create(h.ctx(), "box", "", false)))
	tried("snapshot", errOf(b.Create(h.ctx(), "box", "", true)))
	refused("fork", errOf(b.Fork(h.ctx(), banger.Fork{From: "box"}, banger.Discard)))
	tried("fork", errOf(b.Fork(h.ctx(), banger.Fork{From: "box", WithSecrets: true}, banger.Discard)))
	h.wantState(s, "box", banger.StateRunning, "")

	check(t, errOf(s.Stop(h.ctx(), "box", 0)))
	check(t, errOf(b.Create(h.ctx(), "box", "rests", false)))
	check(t, errOf(s.Start(h.ctx(), "box", false, false, banger.Discard)))
	refused("restore", errOf(b.Restore(h.ctx(), "box", "rests", false, banger.Discard)))
	tried("restore", errOf(b.Restore(h.ctx(), "box", "rests", true, banger.Discard)))
	check(t, errOf(s.Stop(h.ctx(), "box", 0)))
	refused("fork of a snapshot", errOf(b.Fork(h.ctx(), banger.Fork{From: "rests", Name: "fork"}, banger.Discard)))
	made, err := b.Fork(h.ctx(), banger.Fork{From: "rests", Name: "fork", WithSecrets: true}, banger.Discard)
	check(t, err)
	h.await("the fork has the secret", func() bool { return h.said(s, "fork", 1) == digestOf(canary) })
	refused("keep", errOf(b.Keep(h.ctx(), h.started(s, "fork", "box"), false, banger.Discard)))
	if data, err := os.ReadFile(h.secret(made[0].ID, "TOKEN")); err != nil || string(data) != canary+"\n" {
		t.Errorf("the fork's file has %q, %v", data, err)
	}
}

// started starts a VM, and returns the name of its fork.
func (h *host) started(s *supervisor.Supervisor, fork, vm string) string {
	h.t.Helper()
	check(h.t, errOf(s.Start(h.ctx(), vm, false, false, banger.Discard)))
	return fork
}

// TestWhatIsNoSecretLeavesNoVM checks that bad values are refused before any effect.
func TestWhatIsNoSecretLeavesNoVM(t *testing.T) {
	h := newHost(t)
	s := h.daemon()
	big, many := make([]byte, 64<<10), map[string][]byte{}
	for _, first := range "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_" {
		many[string(first)], many[string(first)+"1"] = nil, nil
	}
	for name, values := range map[string]map[string][]byte{
		"a bad name":     {"a b": nil},
		"too many":       many,
		"too long":       {"A": append(big, 1)},
		"all too long":   {"A": big, "B": big, "C": big, "D": big, "E": {1}},
		"no value":       {"B": nil},
		"a NUL in a var": {"A": {0}},
	} {
		spec := h.spec("box")
		if name == "no value" || name == "a NUL in a var" {
			spec.SecretEnv = []string{"A"}
		}
		_, err := s.Create(h.ctx(), spec, values, true, banger.Discard)
		if banger.CodeOf(err) != banger.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	h.wantNothing(s)
}
