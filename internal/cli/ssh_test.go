package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"banger/internal/testing/hosttest"
)

// falseSSH makes an ssh that prints its arguments, one a line, and returns its directory.
func falseSSH(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	const script = "#!/bin/sh\nprintf '%s\\n' \"$@\"\nexit 9\n"
	hosttest.Check(t, os.WriteFile(filepath.Join(dir, "ssh"), []byte(script), 0o755))
	return dir
}

// TestSSH checks what the system's ssh is started with.
func TestSSH(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	id := h.box("box")
	h.must("create", "--name", "rest", h.Image)
	path := []string{"PATH=" + falseSSH(t) + ":" + os.Getenv("PATH")}
	for line, want := range map[string][]string{
		"ssh box":                              {"-F none", "-- box.vm"},
		"ssh me@box.vm -- uname -a":            {"-l me", "-- box.vm uname -a"},
		"ssh box -- -x":                        {"-- box.vm -x"},
		"ssh -A -N -L 1:a:2 -R 3:b:4 -D 5 box": {"-A -N -L 1:a:2 -R 3:b:4 -D 5", "'ssh-proxy' '-A' '" + id + "'"},
		"ssh -t -v -o A=b -i /key box":         {"-t -v -o A=b -i /key", "'ssh-proxy' '-i' '/key'"},
	} {
		got := h.process(path, strings.Fields(line)...)
		out := strings.Join(strings.Fields(got.stdout), " ")
		for _, want := range want {
			if !strings.Contains(out, want) || got.code != 9 {
				t.Errorf("%s ends with %d, and ssh gets %q%s, not %s", line, got.code, out, got.stderr, want)
			}
		}
		if strings.Contains(out, "'-A'") != strings.Contains(line, "-A") {
			t.Errorf("%s lets the VM use the user's agent, or does not: %s", line, out)
		}
	}
	h.process([]string{"PATH=/no/such"}, "ssh", "box").is(t, "", "banger: there is no ssh in PATH (…", 1)
	h.process(path, "ssh", "no").is(t, "", noVM, 1)
	h.process(path, "ssh", "rest").is(t, "",
		"banger: cannot connect to VM rest: it is created (start it: banger start rest)\n", 1)
	known, err := os.ReadFile(h.Path("state/ssh/known_hosts"))
	if err != nil || !strings.Contains(string(known), id) {
		t.Errorf("known_hosts is %q, %v", known, err)
	}
}

// TestSSHProxy logs in to a VM over the stdin and stdout of ssh-proxy, with banger's own key.
func TestSSHProxy(t *testing.T) {
	h := newCLIHost(t)
	id := h.box("box")
	t.Setenv("HOME", t.TempDir())
	t.Setenv("SSH_AUTH_SOCK", "")
	a, _, stderr := h.app()
	stdin, toProxy, err := os.Pipe()
	hosttest.Check(t, err)
	fromProxy, stdout, err := os.Pipe()
	hosttest.Check(t, err)
	a.Stdin, a.Stdout = stdin, stdout
	code := make(chan int, 1)
	go func() {
		code <- a.run(t.Context(), []string{"ssh-proxy", id})
		stdout.Close()
	}()
	conn := hosttest.Stream(fromProxy, toProxy)
	key, err := waitForKey(h, h.Path("state/ssh/id_ed25519"))
	hosttest.Check(t, err)
	c, channels, requests, err := ssh.NewClientConn(conn, "", &ssh.ClientConfig{
		User:            fmt.Sprint(os.Getuid()),
		Auth:            []ssh.AuthMethod{ssh.PublicKeys(key)},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	hosttest.Check(t, err)
	client := ssh.NewClient(c, channels, requests)
	session, err := client.NewSession()
	hosttest.Check(t, err)
	if out, err := session.Output("echo inside"); string(out) != "inside\n" || err != nil {
		t.Errorf("it says %q, %v", out, err)
	}
	client.Close()
	if c := <-code; c != 0 {
		t.Errorf("the proxy ends with %d: %s", c, stderr)
	}
	h.check(line{args: "ssh-proxy no", code: 1, stderr: noVM})
}

// waitForKey reads the user's key when the proxy has made it.
func waitForKey(h *cliHost, path string) (ssh.Signer, error) {
	h.Await("there is a key", func() bool { _, err := os.Stat(path); return err == nil })
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return ssh.ParsePrivateKey(text)
}

// TestSSHConfig checks that an installed configuration follows the VMs.
func TestSSHConfig(t *testing.T) {
	h := newCLIHost(t)
	home := t.TempDir()
	t.Setenv("HOME", home)
	id := h.box("box")
	config := h.Path("state/ssh/config")
	h.check(
		line{args: "ssh-config install", stdout: home + "/.ssh/config includes " + config + "\n"},
		line{args: "ssh-config print no", code: 1, stderr: noVM},
	)
	user, err := os.ReadFile(filepath.Join(home, ".ssh", "config"))
	if err != nil || !strings.Contains(string(user), config) {
		t.Errorf("the user's configuration is %q, %v", user, err)
	}
	has := func(what string, want bool) {
		t.Helper()
		text, err := os.ReadFile(config)
		if err != nil || strings.Contains(string(text), what) != want {
			t.Errorf("the configuration is %q, %v", text, err)
		}
	}
	has("Host box.vm", true)
	h.must("create", "--name", "rest", h.Image)
	has("Host rest.vm", true)
	h.must("rename", "rest", "other")
	has("Host other.vm", true)
	h.must("rm", "other")
	has("Host other.vm", false)
	h.must("run", "-q", "--rm", "--name", "short", h.Image, "true")
	has("Host short.vm", false)
	if all, one := h.must("ssh-config", "print"), h.must("ssh-config", "print", "box.vm"); all != one ||
		!strings.Contains(all, id) {
		t.Errorf("all VMs are %q, and box is %q", all, one)
	}
	h.check(line{args: "ssh-config uninstall"}, line{args: "ssh-config uninstall"})
	if _, err := os.Stat(config); !os.IsNotExist(err) {
		t.Errorf("the configuration is still there: %v", err)
	}
}

// TestAConfigurationThatCannotBeWrittenIsOnlyReported: the operation on the VM itself has succeeded.
func TestAConfigurationThatCannotBeWrittenIsOnlyReported(t *testing.T) {
	h := newCLIHost(t)
	t.Setenv("HOME", t.TempDir())
	h.must("ssh-config", "install")
	hosttest.Check(t, os.Remove(h.Path("state/ssh/lock")))
	hosttest.Check(t, os.Mkdir(h.Path("state/ssh/lock"), 0o700))
	want := "banger: the configuration of ssh was not brought up to date: open LOCK: is a directory\n"
	want = strings.Replace(want, "LOCK", h.Path("state/ssh/lock"), 1)
	h.banger("create", "--name", "box", h.Image).is(t, "…", want, 0)
}
