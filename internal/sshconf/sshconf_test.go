package sshconf

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh/agent"
)

// aKey is a public key of a VM.
const aKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAPJyoZ565me6rWoHM0R5BQl0Wf6/M7UDNgd57/tkQDi"

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, name, content string, mode os.FileMode) {
	t.Helper()
	check(t, os.MkdirAll(filepath.Dir(name), 0o700))
	check(t, os.WriteFile(name, []byte(content), mode))
	check(t, os.Chmod(name, mode))
}

// installation returns an Install in a new home directory.
func installation(t *testing.T) (Install, string) {
	home, state := t.TempDir(), t.TempDir()
	return Install{User: filepath.Join(home, ".ssh", "config"), Ours: filepath.Join(state, "config"),
		Record: filepath.Join(state, "installed")}, home
}

// TestInstallAndUninstall: install adds one line at the top. uninstall restores every byte, the mode and the owner,
// or the absence.
func TestInstallAndUninstall(t *testing.T) {
	for name, c := range map[string]struct {
		content string
		mode    os.FileMode
	}{
		"ordinary":              {"Host a\n  User b\n", 0o600},
		"no newline at the end": {"Host a\n  User b", 0o600},
		"empty":                 {"", 0o600},
		"only a newline":        {"\n", 0o600},
		"carriage returns":      {"Host a\r\n\tUser b\r\n", 0o640},
		"readable by all":       {"# comment\n", 0o644},
		"another Include":       {"Include \"/other\"\n", 0o600},
		"no text of ours":       {"\xff\xfe\x80", 0o400 | 0o200},
	} {
		t.Run(name, func(t *testing.T) {
			i, _ := installation(t)
			write(t, i.User, c.content, c.mode)
			check(t, i.Add())
			check(t, i.Add()) // a second Add changes nothing
			want := "Include \"" + i.Ours + "\"\n" + c.content
			if got, _ := os.ReadFile(i.User); string(got) != want {
				t.Errorf("installed, it is %q", got)
			}
			if !i.Installed() {
				t.Error("it is not known to be installed")
			}
			check(t, i.Remove())
			check(t, i.Remove())
			got, err := os.ReadFile(i.User)
			info, _ := os.Stat(i.User)
			if err != nil || string(got) != c.content || info.Mode() != c.mode || i.Installed() {
				t.Errorf("afterwards it is %q with %v, %v", got, info.Mode(), err)
			}
			if left, _ := os.ReadDir(filepath.Dir(i.User)); len(left) != 1 {
				t.Errorf("there are now %v", left)
			}
		})
	}
}

func TestUninstallRemovesWhatInstallMade(t *testing.T) {
	for name, prepare := range map[string]func(home string){
		"neither file nor directory": func(string) {},
		"no file":                    func(home string) { os.Mkdir(filepath.Join(home, ".ssh"), 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			i, home := installation(t)
			prepare(home)
			before, _ := os.ReadDir(home)
			check(t, i.Add())
			if info, err := os.Stat(i.User); err != nil || info.Mode() != 0o600 {
				t.Errorf("the file is %v, %v", info, err)
			}
			check(t, i.Remove())
			after, _ := os.ReadDir(home)
			if _, err := os.Stat(i.User); err == nil || len(after) != len(before) {
				t.Errorf("left behind: %v", after)
			}
		})
	}
}

// TestUninstallKeepsWhatCameLater: lines that the user wrote between install and uninstall stay.
func TestUninstallKeepsWhatCameLater(t *testing.T) {
	i, _ := installation(t)
	check(t, i.Add())
	data, _ := os.ReadFile(i.User)
	write(t, i.User, "# moved\n"+string(data)+"Host later\n", 0o600)
	check(t, i.Remove())
	if got, _ := os.ReadFile(i.User); string(got) != "# moved\nHost later\n" {
		t.Errorf("it is %q", got)
	}
}

func TestASymlinkedConfigurationStaysOne(t *testing.T) {
	i, home := installation(t)
	target := filepath.Join(home, "dotfiles", "ssh")
	write(t, target, "Host a\n", 0o600)
	check(t, os.Mkdir(filepath.Dir(i.User), 0o700))
	check(t, os.Symlink("../dotfiles/ssh", i.User))
	check(t, i.Add())
	if got, _ := os.ReadFile(target); !bytes.HasPrefix(got, []byte("Include ")) {
		t.Errorf("its target is %q", got)
	}
	check(t, i.Remove())
	link, err := os.Readlink(i.User)
	if got, _ := os.ReadFile(target); err != nil || link != "../dotfiles/ssh" || string(got) != "Host a\n" {
		t.Errorf("it is %q, %v, and its target %q", link, err, got)
	}
}

// TestOddConfigurationsAreRefused: a configuration that cannot be replaced is not changed, and nothing is recorded.
func TestOddConfigurationsAreRefused(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, file string){
		"a directory":      func(t *testing.T, file string) { check(t, os.MkdirAll(file, 0o700)) },
		"a fifo":           func(t *testing.T, file string) { check(t, syscall.Mkfifo(file, 0o600)) },
		"a dead link":      func(t *testing.T, file string) { check(t, os.Symlink("nowhere", file)) },
		"a link to itself": func(t *testing.T, file string) { check(t, os.Symlink(file, file)) },
		"a hard link": func(t *testing.T, file string) {
			write(t, file, "x\n", 0o600)
			check(t, os.Link(file, file+"2"))
		},
		"binary":    func(t *testing.T, file string) { write(t, file, "a\x00b", 0o600) },
		"too large": func(t *testing.T, file string) { write(t, file, strings.Repeat("#\n", maxUserConfig), 0o600) },
		"unwritable": func(t *testing.T, file string) {
			if os.Geteuid() == 0 { // root can write everywhere, but not below a file
				check(t, os.Remove(filepath.Dir(file)))
				write(t, filepath.Dir(file), "", 0o600)
				return
			}
			write(t, file, "x\n", 0o400)
		},
	} {
		t.Run(name, func(t *testing.T) {
			i, _ := installation(t)
			check(t, os.Mkdir(filepath.Dir(i.User), 0o700))
			prepare(t, i.User)
			before, _ := os.Lstat(i.User)
			if err := i.Add(); err == nil || strings.Contains(err.Error(), "\n") {
				t.Errorf("it ends with %v", err)
			}
			if after, _ := os.Lstat(i.User); before != nil && !os.SameFile(before, after) || i.Installed() {
				t.Error("it had an effect")
			}
		})
	}
}

// TestHostileHostsAreRefused: names, ids and keys come from elsewhere. None of them can add a line, a word or a
// pattern.
func TestHostileHostsAreRefused(t *testing.T) {
	c := Config{Proxy: []string{"/bin/banger", "ssh-proxy"}, KnownHosts: "/k", Identity: "/i"}
	good := Host{Name: "web", ID: "0123456789ab", Key: aKey}
	for name, change := range map[string]func(*Host){
		"a line in the name":    func(h *Host) { h.Name = "a\nProxyCommand evil" },
		"a return":              func(h *Host) { h.Name = "a\rHost *" },
		"a pattern":             func(h *Host) { h.Name = "*" },
		"another pattern":       func(h *Host) { h.Name = "!a" },
		"two words":             func(h *Host) { h.Name = "a *" },
		"a list":                func(h *Host) { h.Name = "a,*" },
		"a quote":               func(h *Host) { h.Name = `a"` },
		"a comment":             func(h *Host) { h.Name = "#" },
		"a token":               func(h *Host) { h.Name = "%h" },
		"an option":             func(h *Host) { h.Name = "-oProxyCommand=evil" },
		"capitals":              func(h *Host) { h.Name = "A" },
		"empty":                 func(h *Host) { h.Name = "" },
		"too long":              func(h *Host) { h.Name = strings.Repeat("a", 64) },
		"NUL":                   func(h *Host) { h.Name = "a\x00" },
		"a letter not of ASCII": func(h *Host) { h.Name = "ä" },
		"a shell in the id":     func(h *Host) { h.ID = "';evil'" },
		"a space in the id":     func(h *Host) { h.ID = "a b" },
		"a line in the key":     func(h *Host) { h.Key = aKey + "\n* " + aKey },
		"no key":                func(h *Host) { h.Key = "" },
		"a marker":              func(h *Host) { h.Key = "@cert-authority * " + aKey },
		"options":               func(h *Host) { h.Key = `command="x" ` + aKey },
	} {
		t.Run(name, func(t *testing.T) {
			h := good
			change(&h)
			if text, err := c.Text([]Host{good, h}); err == nil {
				t.Errorf("the configuration is\n%s", text)
			}
			if text, err := KnownHosts([]Host{h, good}); err == nil {
				t.Errorf("known_hosts is\n%s", text)
			}
		})
	}
}

// TestKnownHostsHoldOneLineEach also checks that the comment of a key is left out.
func TestKnownHostsHoldOneLineEach(t *testing.T) {
	text, err := KnownHosts([]Host{{"web", "0123456789ab", aKey + " a comment"}, {"db", "ba9876543210", aKey}})
	check(t, err)
	if want := "web.vm,0123456789ab " + aKey + "\ndb.vm,ba9876543210 " + aKey + "\n"; string(text) != want {
		t.Errorf("it is %q", text)
	}
}

// odd are unusual paths. ssh and the shell must read each of them unchanged.
var odd = []string{"plain", "with space", "100%h %%", "it's", "a;b|c&d>e", "$HOME", "`id`", "a*?[b]", "#x", "ünï",
	"-dash", "~", "tab^"}

// TestOpenSSHReadsOddPathsAsTheyAre lets OpenSSH itself read the configuration. It must find the paths, and run the
// proxy with exactly the words that it was given.
func TestOpenSSHReadsOddPathsAsTheyAre(t *testing.T) {
	client, err := exec.LookPath("ssh")
	check(t, err)
	for _, name := range odd {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), name)
			check(t, os.Mkdir(dir, 0o700))
			proxy := filepath.Join(dir, "proxy")
			write(t, proxy, "#!/bin/sh\nprintf '%s|' \"$@\" > \"$(dirname \"$0\")/called\"\n", 0o755)
			_, _, err := MakeKey(filepath.Join(dir, "key"), "")
			check(t, err)
			c := Config{Proxy: []string{proxy, name, "%h"}, KnownHosts: filepath.Join(dir, "known"),
				Identity: filepath.Join(dir, "key")}
			text, err := c.Text([]Host{{"web", "0123456789ab", aKey}})
			check(t, err)
			file := filepath.Join(t.TempDir(), "config")
			write(t, file, string(text), 0o600)
			out, err := exec.Command(client, "-F", file, "-G", "web.vm").CombinedOutput()
			if err != nil || !strings.Contains(string(out), "stricthostkeychecking true\n") {
				t.Fatalf("%v\n%s", err, out)
			}
			// The proxy sends nothing, so ssh fails.
			log, _ := exec.Command(client, "-v", "-F", file, "web.vm", "true").CombinedOutput()
			called, err := os.ReadFile(filepath.Join(dir, "called"))
			if err != nil || string(called) != name+"|%h|0123456789ab|" {
				t.Errorf("the proxy is called with %q, %v\n%s", called, err, log)
			}
			if !strings.Contains(string(log), "/key type 3") { // -1 would mean that the file does not exist
				t.Errorf("the key is not found:\n%s", log)
			}
		})
	}
}

func TestPathsThatNoQuotingKeepsAreRefused(t *testing.T) {
	for _, path := range []string{"/a\nb", "/a\rb", "/a\x00b", `/a"b`, `/a\b`, "/${HOME}", "/a\x1bb"} {
		if text, err := (Config{Proxy: []string{"p"}, KnownHosts: path,
			Identity: "/i"}).Text([]Host{{"web", "0123456789ab", aKey}}); err == nil {
			t.Errorf("%q gives\n%s", path, text)
		}
		i, _ := installation(t)
		i.Ours = path
		if err := i.Add(); err == nil {
			t.Errorf("%q is included", path)
		}
	}
}

// TestMakeKeyMakesOne: many calls at the same time make only one key, which only its owner can read.
func TestMakeKeyMakesOne(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	var lines [20]string
	var wg sync.WaitGroup
	for i := range lines {
		wg.Go(func() {
			var err error
			if _, lines[i], err = MakeKey(file, "comment"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, l := range lines {
		if l != lines[0] || !strings.HasPrefix(l, "ssh-ed25519 ") {
			t.Errorf("the keys are %q and %q", l, lines[0])
		}
	}
	info, err := os.Stat(file)
	left, _ := os.ReadDir(filepath.Dir(file))
	if err != nil || info.Mode() != 0o600 || len(left) != 1 {
		t.Errorf("it is %v, %v, beside %v", info.Mode(), err, left)
	}
	for name, put := range map[string]func() error{
		"a broken key": func() error { return os.WriteFile(file, []byte("broken"), 0o600) },
		"a fifo":       func() error { return syscall.Mkfifo(file, 0o600) },
		"a directory":  func() error { return os.Mkdir(file, 0o700) },
		"a link":       func() error { return os.Symlink(filepath.Join(t.TempDir(), "elsewhere"), file) },
		"a huge file":  func() error { return errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, 1<<40)) },
	} {
		check(t, os.Remove(file))
		check(t, put())
		if _, _, err := MakeKey(file, ""); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// TestPublicKeys: the keys that may log in are those named, those in the directory, and the agent's.
func TestPublicKeys(t *testing.T) {
	dir := t.TempDir()
	_, named, err := MakeKey(filepath.Join(dir, "named"), "")
	check(t, err)
	_, listed, err := MakeKey(filepath.Join(t.TempDir(), "x"), "")
	check(t, err)
	keys := filepath.Join(dir, "ssh")
	write(t, filepath.Join(keys, "id.pub"), listed+" me@home\n", 0o644)
	write(t, filepath.Join(keys, "again.pub"), listed+"\n", 0o644)
	write(t, filepath.Join(keys, "broken.pub"), "no key\n", 0o644)
	check(t, os.Mkdir(filepath.Join(keys, "dir.pub"), 0o700))
	_, key, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	ring := agent.NewKeyring()
	check(t, ring.Add(agent.AddedKey{PrivateKey: key}))
	socket := filepath.Join(dir, "agent")
	l, err := net.Listen("unix", socket)
	check(t, err)
	served := make(chan struct{})
	go func() {
		defer close(served)
		if conn, err := l.Accept(); err == nil {
			agent.ServeAgent(ring, conn)
			conn.Close()
		}
	}()
	got, err := PublicKeys([]string{filepath.Join(dir, "named")}, keys, socket)
	check(t, err)
	<-served
	l.Close()
	if len(got) != 3 || got[0] != named || got[1] != listed {
		t.Errorf("they are %q", got)
	}
	t.Chdir(keys) // this directory is not read
	if got, err := PublicKeys(nil, "", socket); err != nil || len(got) != 0 {
		t.Errorf("without any they are %q, %v", got, err)
	}
	if _, err := PublicKeys([]string{filepath.Join(dir, "none")}, keys, ""); err == nil {
		t.Error("a key that is not there is taken")
	}
}

// TestWhatAKilledProcessLeftIsRemoved also checks that a file which another process is writing stays.
func TestWhatAKilledProcessLeftIsRemoved(t *testing.T) {
	ours, users := t.TempDir(), t.TempDir()
	const dead = ".banger-4294967295-1" // no process can have this id (proc(5), pid_max)
	others := fmt.Sprintf(".banger-%d-1", os.Getpid())
	mine := ".banger-notes"
	for _, dir := range []string{ours, users} {
		for _, name := range []string{dead, others, mine} {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := WriteFile(filepath.Join(ours, "config"), []byte("text")); err != nil {
		t.Fatal(err)
	}
	if err := (Install{User: filepath.Join(users, "config"), Ours: filepath.Join(ours, "config"),
		Record: filepath.Join(ours, "installed")}).Add(); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string][]string{ours: {others, mine, "config", "installed"},
		users: {others, mine, "config"}} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var have []string
		for _, e := range entries {
			have = append(have, e.Name())
		}
		if !slices.Equal(have, want) {
			t.Errorf("there are %q, not %q", have, want)
		}
	}
}
