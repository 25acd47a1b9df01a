package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/creack/pty"

	"banger"
	"banger/internal/cli/command"
	"banger/internal/config"
	"banger/internal/host"
)

// desk is a user with a repository.
type desk struct {
	t     *testing.T
	root  string // of the repository
	paths host.Paths
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	top := t.TempDir()
	d := &desk{t: t, root: filepath.Join(top, "src"), paths: host.Paths{
		State: filepath.Join(top, "state"), Run: filepath.Join(top, "run"),
		Config: filepath.Join(top, "home", ".config", "banger", "config.toml")}}
	for _, dir := range []string{filepath.Join(d.root, ".git"), filepath.Join(d.root, "below")} {
		check(t, os.MkdirAll(dir, 0o700))
	}
	return d
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (d *desk) write(path, text string) {
	d.t.Helper()
	check(d.t, os.MkdirAll(filepath.Dir(path), 0o700))
	check(d.t, os.WriteFile(path, []byte(text), 0o600))
}

// project gives the repository a file.
func (d *desk) project(text string) {
	d.t.Helper()
	d.write(filepath.Join(d.root, config.ProjectFile), text)
}

// banger runs a command line without a terminal.
func (d *desk) banger(args ...string) (stdout, stderr string, err error) {
	d.t.Helper()
	null, err := os.Open(os.DevNull)
	check(d.t, err)
	defer null.Close()
	var out, problems bytes.Buffer
	err = d.run(&command.App{Stdin: null, Stdout: &out, Stderr: &problems}, args)
	return out.String(), problems.String(), err
}

func (d *desk) run(a *command.App, args []string) error {
	a.Reach(d.paths)
	c := New(a)
	c.SilenceUsage, c.SilenceErrors = true, true
	c.SetArgs(args)
	return c.ExecuteContext(d.t.Context())
}

// typing calls f with a terminal on which a user types, and returns what the terminal has shown.
func (d *desk) typing(keys string, f func(a *command.App)) string {
	d.t.Helper()
	master, slave, err := pty.Open()
	check(d.t, err)
	defer master.Close()
	_, err = io.WriteString(master, keys)
	check(d.t, err)
	shown := make(chan string)
	go func() { // ends when the other end is closed
		text, _ := io.ReadAll(master)
		shown <- string(text)
	}()
	a := &command.App{Stdin: slave, Stdout: slave, Stderr: slave}
	a.Reach(d.paths)
	f(a)
	slave.Close()
	return <-shown
}

// wantError fails the test unless err says text.
func wantError(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("the error is %v, without %s", err, text)
	}
}

// TestARepositorysFileIsObeyedOnceItIsAllowed is the life of a banger.toml.
func TestARepositorysFileIsObeyedOnceItIsAllowed(t *testing.T) {
	d := newDesk(t)
	file := filepath.Join(d.root, config.ProjectFile)
	below := filepath.Join(d.root, "below")
	cpus := func(want, note string) {
		t.Helper()
		out, notes, err := d.banger("show", below, "--origin")
		check(t, err)
		if !regexp.MustCompile(`(?m)^cpus +`+want+`$`).MatchString(out) || !strings.Contains(notes, note) {
			t.Errorf("it shows %s%s, not cpus as %s with %s", out, notes, want, note)
		}
	}
	_, _, err := d.banger("allow", below)
	wantError(t, err, "there is no banger.toml in "+d.root)
	cpus("1 +built in", "")

	d.project("cpus = 3")
	cpus("1 +built in", "banger: "+file+" is not obeyed, because you have not reviewed it (to review it: ")
	_, _, err = d.banger("allow", below)
	wantError(t, err, "use --yes")
	out, screen, err := d.banger("allow", "--yes", below)
	if check(t, err); out != file+" is obeyed\n" || !strings.Contains(screen, "cpus = 3") {
		t.Errorf("it says %s and shows %s", out, screen)
	}
	cpus("3 +banger.toml:1", "is obeyed")

	d.project("# more\ncpus = 4")
	cpus("1 +built in", "is not obeyed, because it has changed")
	screen = d.typing("n\n", func(a *command.App) { err = d.run(a, []string{"allow", below}) })
	wantError(t, err, "the file was not allowed")
	if !strings.Contains(screen, "-cpus = 3") || !strings.Contains(screen, "+cpus = 4") {
		t.Errorf("the change is shown as %s", screen)
	}
	cpus("1 +built in", "is not obeyed, because it has changed")
	d.typing("y\n", func(a *command.App) { err = d.run(a, []string{"allow", below}) })
	check(t, err)
	cpus("4 +banger.toml:2", "is obeyed")

	_, _, err = d.banger("deny", below)
	check(t, err)
	cpus("1 +built in", "is not obeyed, because you have denied it")
	d.project("cpus = 3")
	cpus("3 +banger.toml:1", "is obeyed") // as it was allowed before

	out, _, err = d.banger("show", below, "--format", "json")
	var all shown
	if check(t, err); json.Unmarshal([]byte(out), &all) != nil || all.Project.File != file ||
		all.Project.State != "allowed" ||
		all.Settings[1] != (config.Setting{Key: "cpus", Value: "3", Origin: "banger.toml:1"}) {
		t.Errorf("as JSON it is %s", out)
	}
	info, err := os.Stat(filepath.Join(d.paths.State, "reviews"))
	if check(t, err); info.Mode().Perm() != 0o700 {
		t.Errorf("the reviews have the mode %s", info.Mode())
	}
}

// TestACommandAsksBeforeItObeys calls what a command calls that obeys a banger.toml.
func TestACommandAsksBeforeItObeys(t *testing.T) {
	d := newDesk(t)
	d.project("cpus = 3 # this is not shown as it is: \u202e")
	null, err := os.Open(os.DevNull)
	check(t, err)
	defer null.Close()
	silent := &command.App{Stdin: null, Stdout: io.Discard, Stderr: io.Discard}
	silent.Reach(d.paths)
	p, err := Reviewed(t.Context(), silent, d.root)
	if banger.CodeOf(err) != banger.CodeDenied || p != nil {
		t.Errorf("without a terminal it is %v", p)
	}
	wantError(t, err, "banger config allow "+d.root)

	shown := d.typing("\n", func(a *command.App) { p, err = Reviewed(t.Context(), a, d.root) })
	if p != nil || !strings.Contains(shown, `as it is: \u202e`) || strings.Contains(shown, "\u202e") {
		t.Errorf("it is %v, and shown as %s", p, shown)
	}
	wantError(t, err, "banger config deny "+d.root)
	d.typing("yes\n", func(a *command.App) { p, err = Reviewed(t.Context(), a, d.root) })
	if check(t, err); p == nil || p.CPUs != "3" {
		t.Errorf("after a yes it is %v", p)
	}
	if p, err = Reviewed(t.Context(), silent, d.root); err != nil || p.CPUs != "3" {
		t.Errorf("when it is allowed it is %v, %v", p, err)
	}
	d.project("cpus = 4")
	_, err = Reviewed(t.Context(), silent, d.root)
	wantError(t, err, "it has changed since you allowed it")
	_, _, err = d.banger("deny", d.root)
	check(t, err)
	if p, err = Reviewed(t.Context(), silent, d.root); err != nil || p != nil {
		t.Errorf("when it is denied it is %v, %v", p, err)
	}
	d.project("cpu = 4")
	_, err = Reviewed(t.Context(), silent, d.root)
	wantError(t, err, `banger.toml:1: the key "cpu" is unknown`)
	check(t, os.Remove(filepath.Join(d.root, config.ProjectFile)))
	if p, err = Reviewed(t.Context(), silent, d.root); err != nil || p != nil {
		t.Errorf("without a file it is %v, %v", p, err)
	}
}

// editor makes $VISUAL a shell script, whose $1 is the file to edit. The script runs in a directory of its own.
func (d *desk) editor(script string) {
	d.t.Helper()
	path := filepath.Join(d.t.TempDir(), "editor")
	d.write(path, script)
	d.t.Setenv("VISUAL", "sh '"+path+"'")
}

// TestEdit edits a file that is absent, right, wrong, and linked.
func TestEdit(t *testing.T) {
	d := newDesk(t)
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	has := func(want string) {
		t.Helper()
		text, err := os.ReadFile(d.paths.Config)
		info, serr := os.Stat(d.paths.Config)
		if err != nil || serr != nil || string(text) != want || info.Mode() != 0o600 {
			t.Errorf("the file is %s, %v, not %s", text, err, want)
		}
	}
	left := func(want int) {
		t.Helper()
		list, err := os.ReadDir(tmp)
		if check(t, err); len(list) != want {
			t.Errorf("%d copies are left, not %d", len(list), want)
		}
	}
	edit := func(script string) error {
		t.Helper()
		d.editor(script)
		_, _, err := d.banger("edit")
		return err
	}
	check(t, edit("true"))
	has(template)
	check(t, edit(`echo 'cpus = 2' > "$1"`))
	has("cpus = 2\n")
	check(t, edit("true"))
	left(0)
	wantError(t, edit("exit 3"), "has failed")
	left(0)
	err := edit(`echo 'cpu = 3' > "$1"`)
	wantError(t, err, `config.toml:1: the key "cpu" is unknown (did you mean "cpus"?)`)
	wantError(t, err, "what you have written is in "+tmp)
	has("cpus = 2\n")
	left(1)
	wantError(t, edit(`echo 'cpus = 5' > "$1"; echo 'cpus = 4' > `+d.paths.Config), "has changed while you edited it")
	has("cpus = 4\n")

	d.editor(`test -e again && echo 'cpus = 6' > "$1"; test -e again || echo 'cpus = x' > "$1"; > again`)
	t.Chdir(t.TempDir())
	shown := d.typing("y\n", func(a *command.App) { err = d.run(a, []string{"edit"}) })
	if check(t, err); !strings.Contains(shown, "line 1: this is not TOML") || !strings.Contains(shown, "Edit it again?") {
		t.Errorf("the terminal shows %s", shown)
	}
	has("cpus = 6\n")
	d.editor(`echo 'cpus = x' > "$1"`)
	d.typing("n\n", func(a *command.App) { err = d.run(a, []string{"edit"}) })
	wantError(t, err, "nothing was changed")
	has("cpus = 6\n")

	dotfile := filepath.Join(t.TempDir(), "dotfile")
	check(t, os.Rename(d.paths.Config, dotfile))
	check(t, os.Symlink(dotfile, d.paths.Config))
	check(t, edit(`echo 'cpus = 7' > "$1"`))
	has("cpus = 7\n")
	if to, err := os.Readlink(d.paths.Config); to != dotfile {
		t.Errorf("the link is gone: %v", err)
	}
}

// TestABrokenFileCanBeEdited has a configuration that no other command takes.
func TestABrokenFileCanBeEdited(t *testing.T) {
	d := newDesk(t)
	d.write(d.paths.Config, "cpu = 2")
	_, _, err := d.banger("show", d.root)
	wantError(t, err, "unknown")
	d.editor(`echo 'cpus = 2' > "$1"`)
	_, _, err = d.banger("edit")
	check(t, err)
	out, _, err := d.banger("show", d.root)
	if check(t, err); !strings.Contains(out, "cpus") {
		t.Errorf("it shows %s", out)
	}
}

// TestTheFirstFileHasAllKeys reads the template without its comment signs.
func TestTheFirstFileHasAllKeys(t *testing.T) {
	if _, err := config.ParseUser("template", []byte(template)); err != nil {
		t.Error(err)
	}
	text := regexp.MustCompile(`(?m)^# ([a-z_]+ =|\[)`).ReplaceAllString(template, "$1")
	u, err := config.ParseUser("template", []byte(text))
	check(t, err)
	v := reflect.ValueOf(u)
	for i := range v.NumField() {
		if v.Type().Field(i).IsExported() && v.Field(i).IsZero() {
			t.Errorf("it does not have %s", v.Type().Field(i).Name)
		}
	}
	if text := fmt.Sprintf("%+v", u.Common); strings.Contains(text, ": ") || u.Image == "" || u.Policy == nil {
		t.Errorf("it has only %s", text)
	}
}
