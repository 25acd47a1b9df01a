package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"banger"
	"banger/internal/recipe"
)

const userText = `image = "debian-bookworm-dev"
cpus = 0.5
memory = "2g"
disk = "20g"
network = "user"
warm = "auto"
idle = "15m"

[policy]
default = "deny"
allow = ["*.debian.org tcp:80,443"]
deny = ["10.0.0.0/8"]

[budget]
running = 4
memory = "8g"

[git]
name = "A. User"
email = "a@example.com"

[[file_sync]]
host = "~/.gitconfig"
guest = "~/.gitconfig"
mode = "0600"
owner = "root"

[agents.mine]
command = ["mine", "{prompt}"]
allow = ["api.example.com tcp:443"]
`

const projectText = `cpus = 4
ports = ["8080:80"]
bootstrap = true
tools = { go = "1.26", node = 22 }

[policy]
allow = ["proxy.golang.org tcp:443"]

[services.web]
command = "npm start"
ready = "http:80/"
env = { B = "2", A = "1" }
restart = "on-failure:3"

[services.db]
command = ["postgres", "-D", "/data"]
dir = "db/."

[tasks.test]
run = "make test"
description = "All tests"
`

// TestAUsersFileIsRead reads one with all keys.
func TestAUsersFileIsRead(t *testing.T) {
	u, err := ParseUser("/h/config.toml", []byte(userText))
	if err != nil {
		t.Fatal(err)
	}
	u.file = file{}
	want := User{
		Common: Common{Image: "debian-bookworm-dev", CPUs: "0.5", Memory: "2g", Disk: "20g", Network: "user",
			Policy: &Policy{"deny", []string{"*.debian.org tcp:80,443"}, []string{"10.0.0.0/8"}}},
		Warm: "auto", Idle: "15m", Budget: Budget{4, "8g"}, Git: Identity{"A. User", "a@example.com"},
		FileSync: []FileSync{{"~/.gitconfig", "~/.gitconfig", "0600", "root"}},
		Agents: map[string]recipe.Recipe{"mine": {Command: []string{"mine", "{prompt}"},
			Allow: []string{"api.example.com tcp:443"}}},
	}
	if !reflect.DeepEqual(u, want) || u.Budget.Bytes() != 8<<30 {
		t.Errorf("it is %+v, not %+v", u, want)
	}
	p, err := u.Policy.Resolve()
	if got := strings.ReplaceAll(p.String(), "\n", "|"); err != nil ||
		got != "deny 10.0.0.0/8|allow *.debian.org tcp:80,443|default deny|" {
		t.Errorf("the policy is %s: %v", got, err)
	}
}

// TestARepositorysFileIsRead reads one with all keys.
func TestARepositorysFileIsRead(t *testing.T) {
	root := t.TempDir()
	if p, raw, err := LoadProject(root); p != nil || raw != nil || err != nil {
		t.Errorf("without a file it is %v, %q, %v", p, raw, err)
	}
	write(t, filepath.Join(root, ProjectFile), projectText)
	p, raw, err := LoadProject(root)
	if err != nil || string(raw) != projectText {
		t.Fatalf("the text is %q, %v", raw, err)
	}
	if p.Line("tools", "go") != 4 || p.Line("tasks", "test") != 19 {
		t.Errorf("the lines are %d and %d", p.Line("tools", "go"), p.Line("tasks", "test"))
	}
	p.file = file{}
	no := banger.RestartPolicy{Name: banger.RestartNo}
	want := &Project{
		Common: Common{CPUs: "4", Policy: &Policy{Allow: []string{"proxy.golang.org tcp:443"}}},
		Ports:  []string{"8080:80"}, Bootstrap: true, Tools: map[string]string{"go": "1.26", "node": "22"},
		Services: map[string]banger.SessionSpec{
			"web": {Name: "web", Command: banger.Exec{Args: []string{"sh", "-c", "npm start"}, Env: []string{"A=1", "B=2"}},
				Restart: banger.RestartPolicy{Name: banger.RestartOnFailure, Max: 3}, Ready: &banger.Probe{Check: "http:80/"}},
			"db": {Name: "db", Command: banger.Exec{Args: []string{"postgres", "-D", "/data"}, Dir: "db"}, Restart: no},
		},
		Tasks: map[string]Task{"test": {"All tests", banger.Exec{Args: []string{"sh", "-c", "make test"}}}},
	}
	if !reflect.DeepEqual(p, want) {
		t.Errorf("it is %+v, not %+v", p, want)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestErrorsNameFileLineAndKey has each key with a value that cannot be.
func TestErrorsNameFileLineAndKey(t *testing.T) {
	for text, want := range map[string]string{
		"\nimage = \"\"":                                    "config.toml:2: image: it is empty",
		"image = \"a\\u0000\"":                              "config.toml:1: image: ",
		"cpus = 0":                                          "config.toml:1: cpus: cpus is 0, but must be between",
		"cpus = \"two\"":                                    "config.toml:1: cpus: cpus is two",
		"memory = \"2x\"":                                   "config.toml:1: memory: \"2x\" is not a size",
		"memory = \"1m\"":                                   "config.toml:1: memory: memory is 1 MiB, but must be between",
		"disk = 5":                                          "config.toml:1: disk: disk is 5 B",
		"network = \"No Such\"":                             "config.toml:1: network: ",
		"warm = \"hot\"":                                    "config.toml:1: warm: warm is \"hot\"",
		"idle = \"x\"":                                      "config.toml:1: idle: idle is \"x\"",
		"[policy]\ndefault = \"maybe\"":                     "config.toml:2: policy.default: it is \"maybe\", but must be allow or deny",
		"[policy]\nallow = [\n\"a b c d\"]":                 "config.toml:2: policy.allow: ",
		"[policy]\ndeny = [\"10.0.0.1/8\"]":                 "config.toml:2: policy.deny: ",
		"[policy]\nallow = \"x\"":                           "line 2: the value of \"policy.allow\" is of the wrong kind",
		"[budget]\nrunning = 0":                             "config.toml:2: budget.running: it is 0",
		"[budget]\nmemory = \"x\"":                          "config.toml:2: budget.memory: ",
		"[git]\nname = \"a\\nb\"":                           "config.toml:2: git.name: it has a control character",
		"[git]\nemail = \"<a>\"":                            "config.toml:2: git.email: it must not have one of <>",
		"[[file_sync]]\nhost = \"~/a\"":                     "config.toml:1: file_sync.0.guest: \"\" is not a plain path",
		"[[file_sync]]\nhost = \"a\"":                       "config.toml:2: file_sync.0.host: ",
		"[[file_sync]]\nhost='~/a/../../b'":                 "config.toml:2: file_sync.0.host: ",
		"[[file_sync]]\nhost='/a'\nguest='/b'\nmode='4755'": "config.toml:4: file_sync.0.mode: it is \"4755\"",
		"[[file_sync]]\nhost='/a'\nguest='/b'\nowner='a b'": "config.toml:4: file_sync.0.owner: ",
		"[agents.x]\ndescription = \"x\"":                   "config.toml:1: agents.x: the recipe of this agent has no command",
		"[agents.\"a b\"]\ncommand = [\"x\"]":               "config.toml:1: agents.a b: ",
		"[agents.x]\ncommand = [\"x\"]\nallow = [\"@\"]":    "config.toml:1: agents.x: ",
		"\ncpu = 2":                                         "config.toml:2: the key \"cpu\" is unknown (did you mean \"cpus\"?)",
		"[policy]\nalow = []":                               "config.toml:2: the key \"policy.alow\" is unknown (did you mean \"allow\"?)",
		"[[file_sync]]\nhots = 1":                           "(did you mean \"host\"?)",
		"[agents.x]\ncomand = []":                           "(did you mean \"command\"?)",
		"ports = []":                                        "config.toml:1: the key \"ports\" is unknown (see docs/configuration.md)",
		"cpus = ":                                           "cannot read config.toml: line 1: this is not TOML",
		strings.Repeat("[[file_sync]]\n", 200):              "there are more than 100",
		"#" + strings.Repeat("x", 1<<20) + "\n":             "it has more than",
	} {
		_, err := ParseUser("config.toml", []byte(text))
		if err == nil || banger.CodeOf(err) != banger.CodeInvalid || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, without %s", text, err, want)
		}
	}
	for text, want := range map[string]string{
		"ports = [\"80:x\"]":                     "banger.toml:1: ports: ",
		"ports = [\"8080:80\", \"8080:81\"]":     "banger.toml:1: ports: ",
		"[tools]\n\"-x\" = \"1\"":                "banger.toml:2: tools.-x: \"-x\" is not a name of a tool",
		"[tools]\ngo = \"$(x)\"":                 "banger.toml:2: tools.go: \"$(x)\" is not a version of go",
		"[services.web]\nready = \"tcp:1\"":      "banger.toml:1: services.web.command: it must be a text",
		"[services.web]\ncommand = 1":            "banger.toml:2: services.web.command: it must be a text",
		"[services.web]\ncommand = [1]":          "banger.toml:2: services.web.command: a word of it",
		"[services.web]\ncommand = \"\\u0000\"":  "banger.toml:1: services.web: ",
		"[services.Web]\ncommand = \"x\"":        "banger.toml:1: services.Web: ",
		"[services.w]\ncommand='x'\nready='x'":   "banger.toml:3: services.w.ready: ",
		"[services.w]\ncommand='x'\nrestart='x'": "banger.toml:3: services.w.restart: ",
		"[services.w]\ncommand='x'\ndir='../x'":  "banger.toml:3: services.w.dir: ",
		"[services.w]\ncommand='x'\nenv={''=1}":  "of the wrong kind",
		"[services.w]\ncommand='x'\nenv={''=''}": "banger.toml:1: services.w: ",
		"[tasks.a]\nrun = \" \"":                 "banger.toml:2: tasks.a.run: ",
		"[tasks.a]\nrun = \"a\"\ndir = \"/\"":    "banger.toml:3: tasks.a.dir: ",
		"[tasks.a]\nrun='a'\ndescription='\\n'":  "",
		"[tasks.a]\nrunn = \"a\"":                "(did you mean \"run\"?)",
		"idle = \"15m\"":                         "the key \"idle\" is unknown",
		"bootstrap = \"yes\"":                    "the value of \"bootstrap\" is of the wrong kind",
	} {
		_, err := ParseProject([]byte(text))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, without %s", text, err, want)
		}
	}
}

// TestTheUsersFileIsTheUsersAlone has files that others can change, links, and things that are no files.
func TestTheUsersFileIsTheUsersAlone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config.toml")
	if u, err := LoadUser(path); err != nil || !reflect.DeepEqual(u, User{}) {
		t.Errorf("without a file it is %+v, %v", u, err)
	}
	if u, err := LoadUser(""); err != nil || !reflect.DeepEqual(u, User{}) {
		t.Errorf("without a path it is %+v, %v", u, err)
	}
	real := filepath.Join(dir, "dotfiles")
	write(t, real, "cpus = 2")
	for _, err := range []error{os.Symlink(real, path), syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if u, err := LoadUser(path); err != nil || u.CPUs != "2" {
		t.Errorf("through a link it is %+v, %v", u, err)
	}
	refused := func(path, want string) {
		t.Helper()
		if _, err := LoadUser(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, without %s", path, err, want)
		}
	}
	for _, mode := range []os.FileMode{0o620, 0o602} {
		if err := os.Chmod(real, mode); err != nil {
			t.Fatal(err)
		}
		refused(path, "other users can change it")
	}
	refused(filepath.Join(dir, "pipe"), "not a regular file")
	refused(dir, "not a regular file")
	if os.Geteuid() == 0 {
		if err := os.Lchown(real, 4242, 4242); err != nil {
			t.Fatal(err)
		}
		refused(path, "belongs to another user")
	}
}

// TestTheRepositorysFileStaysBelowItsRoot has a link that leads out, a pipe and a directory.
func TestTheRepositorysFileStaysBelowItsRoot(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "file")
	write(t, outside, "cpus = 1")
	for name, set := range map[string]func(path string) error{
		"a link out":  func(path string) error { return os.Symlink(outside, path) },
		"a pipe":      func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"a directory": func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		root := t.TempDir()
		if err := set(filepath.Join(root, ProjectFile)); err != nil {
			t.Fatal(err)
		}
		if p, _, err := LoadProject(root); banger.CodeOf(err) != banger.CodeInvalid || p != nil {
			t.Errorf("%s: it is %v, %v", name, p, err)
		}
	}
	root := t.TempDir()
	write(t, filepath.Join(root, "other"), "cpus = 3")
	if err := os.Symlink("other", filepath.Join(root, ProjectFile)); err != nil {
		t.Fatal(err)
	}
	if p, _, err := LoadProject(root); err != nil || p.CPUs != "3" {
		t.Errorf("through a link in the root it is %v, %v", p, err)
	}
}

// TestWhatCounts merges both files, one of them, and none.
func TestWhatCounts(t *testing.T) {
	t.Setenv("HOME", "/h")
	user, err := ParseUser("/h/.config/banger/config.toml", []byte(userText))
	if err != nil {
		t.Fatal(err)
	}
	project, err := ParseProject([]byte(projectText))
	if err != nil {
		t.Fatal(err)
	}
	show := func(m Merged) string {
		var list []string
		for _, s := range m.Settings {
			list = append(list, s.Key+" = "+s.Value+" ("+s.Origin+")")
		}
		return strings.Join(list, "\n")
	}
	const none = `image = debian-bookworm-dev (built in)
cpus = 1 (built in)
memory = 512m (built in)
disk = 10g (built in)
network = user (built in)
policy.default = allow (built in)
warm = auto (built in)
idle = none (built in)`
	const file = "~/.config/banger/config.toml"
	const both = `image = debian-bookworm-dev (` + file + `:1)
cpus = 4 (banger.toml:1)
memory = 2g (` + file + `:3)
disk = 20g (` + file + `:4)
network = user (` + file + `:5)
policy.default = deny (built in)
policy.allow = proxy.golang.org tcp:443 (banger.toml:7)
warm = auto (` + file + `:6)
idle = 15m (` + file + `:7)
budget.running = 4 (` + file + `:15)
budget.memory = 8g (` + file + `:16)
git.name = A. User (` + file + `:19)
git.email = a@example.com (` + file + `:20)
file_sync = ~/.gitconfig -> ~/.gitconfig (` + file + `:22)
agents.mine = mine {prompt} (` + file + `:28)
ports = 8080:80 (banger.toml:2)
bootstrap = true (banger.toml:3)
tools.go = 1.26 (banger.toml:4)
tools.node = 22 (banger.toml:4)
services.db = postgres -D /data (banger.toml:15)
services.web = npm start (banger.toml:9)
tasks.test = make test (banger.toml:19)`
	for want, m := range map[string]Merged{none: Merge(BuiltIn(), User{}, nil), both: Merge(BuiltIn(), user, project)} {
		if got := show(m); got != want {
			t.Errorf("what counts is\n%s\nnot\n%s", got, want)
		}
	}
	m := Merge(BuiltIn(), user, nil)
	if m.CPUs != "0.5" || m.Idle != "15m" || m.Policy.Default != "deny" || Merge(BuiltIn(), User{}, nil).Policy != nil {
		t.Errorf("it is %+v", m)
	}
	if m := Merge(BuiltIn(), User{}, project); m.CPUs != "4" || m.Memory != "512m" || len(m.Policy.Allow) != 1 {
		t.Errorf("it is %+v", m)
	}
}

// TestReviews is the life of a file that a user reviews.
func TestReviews(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "reviews")
	r := Reviews{dir}
	const path = "/src/project/banger.toml"
	a, b := []byte("cpus = 1"), []byte("cpus = 2")
	state := func(raw []byte, want Verdict) {
		t.Helper()
		if got := (Reviews{dir}).State(path, raw); got != want {
			t.Errorf("%s is %s, not %s", raw, got, want)
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	state(a, New)
	must(r.Allow(path, a))
	state(a, Allowed)
	state(b, Changed)
	must(r.Deny(path, b))
	state(b, Denied)
	state(a, Allowed)
	if got := r.State("/elsewhere/banger.toml", a); got != New {
		t.Errorf("the file elsewhere is %s", got)
	}
	must(r.Allow(path, b))
	state(a, Allowed) // such as on another branch
	if got := r.Previous(path); string(got) != string(b) {
		t.Errorf("the content before is %s", got)
	}
	must(r.Deny(path, a))
	must(r.Deny(path, b))
	if r.Previous(path) != nil {
		t.Error("a denied content is the one before")
	}
	state([]byte(""), New)
	for i := range 3 * maxSums {
		must(r.Allow(path, []byte{byte(i), byte(i >> 8)}))
	}
	if n := len(r.read(path).Allowed); n != maxSums {
		t.Errorf("%d contents are remembered", n)
	}
	info, err := os.Stat(r.file(path))
	must(err)
	top, err := os.Stat(dir)
	must(err)
	if info.Mode() != 0o600 || top.Mode().Perm() != 0o700 {
		t.Errorf("the modes are %s and %s", info.Mode(), top.Mode())
	}
}

// TestReviewsOfOthersAllowNothing damages what is kept, and opens it to others.
func TestReviewsOfOthersAllowNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "reviews")
	r := Reviews{dir}
	const path = "/src/project/banger.toml"
	raw := []byte("cpus = 1")
	for name, damage := range map[string]func() error{
		"other users can write there": func() error { return os.Chmod(dir, 0o777) },
		"it is not JSON":              func() error { return os.WriteFile(r.file(path), []byte("{"), 0o600) },
		"it is of another file":       func() error { return os.Rename(r.file(path), r.file("/other")) },
	} {
		if err := r.Allow(path, raw); err != nil {
			t.Fatal(err)
		}
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if a, b := r.State(path, raw), r.State("/other", raw); a != New || b != New {
			t.Errorf("%s: it is %s, and for another file %s", name, a, b)
		}
	}
}

// FuzzFiles checks that no file makes the readers fail in another way than by an error.
func FuzzFiles(f *testing.F) {
	f.Add([]byte(userText))
	f.Add([]byte(projectText))
	f.Fuzz(func(_ *testing.T, raw []byte) {
		ParseUser("config.toml", raw)
		ParseProject(raw)
	})
}
