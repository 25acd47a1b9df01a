package banger_test

import (
	"bytes"
	"context"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"banger/internal/api/wire"
	"banger/internal/testing/apitest"
)

// TestInstall builds banger once, and installs it from a tree that has only what make install needs.
func TestInstall(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds banger, and installs it many times")
	}
	tree := t.TempDir()
	build := exec.Command("go", "build", "-trimpath")
	for _, flag := range []string{os.Getenv("NODWARF"), os.Getenv("SQLITE")} { // of make build, which has compiled most
		if flag != "" {
			build.Args = append(build.Args, flag)
		}
	}
	build.Args = append(build.Args, "-o", filepath.Join(tree, "bin/banger"), "./cmd/banger")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v", out, err)
	}
	if err := os.Mkdir(filepath.Join(tree, "scripts"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"scripts/install", "Makefile"} {
		text, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(filepath.Join(tree, file), text, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]func(*testing.T, installer){
		"nothing is left":           nothingIsLeft,
		"what was there stays":      whatWasThereStays,
		"packages are made":         packagesAreMade,
		"a wrong list":              aWrongList,
		"running programs go on":    runningProgramsGoOn,
		"it is used":                itIsUsed,
		"an interrupted install":    anInterruptedInstall,
		"bad places":                badPlaces,
		"a program that is missing": aMissingProgram,
	} {
		t.Run(name, func(t *testing.T) {
			test(t, installer{t, tree, filepath.Join(t.TempDir(), "a prefix/of banger")})
		})
	}
}

// installer calls make in a tree.
type installer struct {
	*testing.T
	tree, prefix string
}

// make calls make with a target and variables, under a umask that hides everything from others. It returns the output.
func (i installer) make(want int, target string, variables ...string) string {
	i.Helper()
	args := append([]string{"bash", "-c", `umask 077; make -s "$@"`, "make", target}, variables...)
	out, code := run(i.T, i.tree, nil, args...)
	if code != want {
		i.Fatalf("make %s %s ends with %d: %s", target, variables, code, out)
	}
	return out
}

func (i installer) install() { i.Helper(); i.make(0, "install", "PREFIX="+i.prefix) }

func (i installer) uninstall() { i.Helper(); i.make(0, "uninstall", "PREFIX="+i.prefix) }

// files returns the modes of all files and directories below dir by their paths.
func (i installer) files(dir string) map[string]fs.FileMode {
	i.Helper()
	modes := map[string]fs.FileMode{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if path != dir && err == nil {
			modes[strings.TrimPrefix(path, dir+"/")] = info.Mode()
		}
		return err
	})
	if err != nil {
		i.Fatal(err)
	}
	return modes
}

// top returns the directory that was there before anything was installed.
func (i installer) top() string { return filepath.Dir(filepath.Dir(i.prefix)) }

// nothingIsLeft installs twice and uninstalls. All users can read what is installed, and the list names all of it.
func nothingIsLeft(t *testing.T, i installer) {
	i.install()
	i.install()
	text, err := os.ReadFile(i.prefix + "/share/banger/installed")
	if err != nil {
		t.Fatal(err)
	}
	listed := strings.Split(strings.TrimSpace(string(text)), "\n")
	modes := i.files(i.top())
	for path, mode := range modes {
		want := fs.FileMode(0o644)
		full := filepath.Join(i.top(), path)
		switch {
		case mode.IsDir():
			want, full = fs.ModeDir|0o755, full+"/"
		case filepath.Base(filepath.Dir(path)) == "bin":
			want = 0o755
		}
		if mode != want {
			t.Errorf("%s has the mode %s, not %s", path, mode, want)
		}
		if !slices.Contains(listed, full) {
			t.Errorf("%s is not listed", full)
		}
	}
	if len(listed) != len(modes) || len(modes) < 50 {
		t.Errorf("%d are there, %d are listed", len(modes), len(listed))
	}
	i.uninstall()
	if left := i.files(i.top()); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
	if out := i.make(2, "uninstall", "PREFIX="+i.prefix); !strings.Contains(out, "installed is not there: make install") {
		t.Errorf("a second time it says %q", out)
	}
}

// whatWasThereStays uninstalls beside files of others. Files of an older version go, and directories that were there
// stay.
func whatWasThereStays(t *testing.T, i installer) {
	write := func(path, text string) {
		t.Helper()
		err := os.MkdirAll(filepath.Dir(i.prefix+path), 0o755)
		if err == nil {
			err = os.WriteFile(i.prefix+path, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write("/bin/other", "other")
	i.install()
	write("/share/man/man1/other.1", "other")
	write("/share/man/man1/banger-old.1", "old")
	list := "/share/banger/installed"
	text, err := os.ReadFile(i.prefix + list)
	if err != nil {
		t.Fatal(err)
	}
	write(list, string(text)+i.prefix+"/share/man/man1/banger-old.1\n")
	i.install()
	if _, err := os.Stat(i.prefix + "/share/man/man1/banger-old.1"); err == nil {
		t.Error("the page of an older version is still there")
	}
	i.uninstall()
	var left []string
	for path, mode := range i.files(i.prefix) {
		if !mode.IsDir() {
			left = append(left, path)
		}
	}
	slices.Sort(left)
	if want := []string{"bin/other", "share/man/man1/other.1"}; !slices.Equal(left, want) {
		t.Errorf("left are %q", left)
	}
}

// packagesAreMade installs below DESTDIR, whose list has the paths that the package's files will have.
func packagesAreMade(t *testing.T, i installer) {
	dest := "DESTDIR=" + i.prefix
	i.make(0, "install", "PREFIX=/usr", dest)
	text, err := os.ReadFile(i.prefix + "/usr/share/banger/installed")
	if err != nil || !strings.Contains("\n"+string(text), "\n/usr/bin/banger\n") {
		t.Errorf("the list is %v, %s", err, text)
	}
	i.make(0, "uninstall", "PREFIX=/usr", dest)
	if left := i.files(i.prefix); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
}

// aWrongList checks that a list cannot lead out of the prefix.
func aWrongList(t *testing.T, i installer) {
	i.install()
	letter := filepath.Join(i.top(), "letter")
	if err := os.WriteFile(letter, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{letter, i.prefix + "/../../letter", i.prefix + "/..", "letter"} {
		if err := os.WriteFile(i.prefix+"/share/banger/installed", []byte(line+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		out := i.make(2, "uninstall", "PREFIX="+i.prefix)
		if _, err := os.Stat(letter); err != nil || !strings.Contains(out, "which is not below "+i.prefix) {
			t.Errorf("%q: %v, %s", line, err, out)
		}
	}
}

// runningProgramsGoOn upgrades while an installed program runs. The program ends as it would have without.
func runningProgramsGoOn(t *testing.T, i installer) {
	i.install()
	upgraded := make(chan bool)
	asked := make(chan bool, 1)
	socket := apitest.ServeVersion(t, wire.Version{}, func(w http.ResponseWriter, r *http.Request) {
		asked <- true
		select {
		case <-upgraded:
		case <-r.Context().Done():
		}
		w.Write([]byte(`[{"id":"0123","name":"box"}]`))
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, i.prefix+"/bin/banger", "ps", "-a")
	cmd.Env = withDaemon(socket)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-asked:
	case <-ctx.Done():
		t.Fatal("it does not ask the daemon")
	}
	i.install()
	close(upgraded)
	if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "box") {
		t.Errorf("it ends with %v: %s", err, &out)
	}
}

// itIsUsed installs once, and uses the pages and the completions.
func itIsUsed(t *testing.T, i installer) {
	i.install()
	for name, test := range map[string]func(*testing.T, installer){
		"man": pagesAreRead, "bash": bashCompletes, "zsh": zshCompletes, "fish": fishCompletes,
	} {
		t.Run(name, func(t *testing.T) { test(t, installer{t, i.tree, i.prefix}) })
	}
}

// pagesAreRead reads all pages as man does, and as strictly as mandoc.
func pagesAreRead(t *testing.T, i installer) {
	pages, err := filepath.Glob(i.prefix + "/share/man/man1/*.1")
	if err != nil || len(pages) < 50 {
		t.Fatalf("there are %d pages, %v", len(pages), err)
	}
	find(t, "mandoc", "man")
	lint := append([]string{"mandoc", "-T", "lint", "-W", "warning"}, pages...)
	if out, code := run(t, i.tree, nil, lint...); code != 0 {
		t.Errorf("mandoc says %s", out)
	}
	env := []string{"MANWIDTH=80", "MANPATH=" + i.prefix + "/share/man"}
	out, code := run(t, i.tree, env, "man", "--warnings", "banger-run")
	bold := regexp.MustCompile(`.\x08|\x1b\[[0-9;]*m`)
	out = bold.ReplaceAllString(out, "")
	if code != 0 || !strings.Contains(out, "--memory") || strings.Contains(out, "warning") {
		t.Errorf("man ends with %d: %s", code, out)
	}
}

// anInterruptedInstall removes what an install has left that was killed before it was complete.
func anInterruptedInstall(t *testing.T, i installer) {
	i.install()
	for _, path := range []string{"/bin/.banger.new", "/share/man/man1/.banger.1.new"} {
		if err := os.WriteFile(i.prefix+path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(i.prefix + "/share/fish/vendor_completions.d/banger.fish"); err != nil {
		t.Fatal(err)
	}
	i.uninstall()
	if left := i.files(i.top()); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
}

// badPlaces checks that nothing happens where the place is not clear.
func badPlaces(t *testing.T, i installer) {
	for variable, want := range map[string]string{
		"PREFIX=here":  "PREFIX is here, but must be an absolute path",
		"PREFIX=~":     "PREFIX is ~, but must be an absolute path",
		"DESTDIR=pkg":  "DESTDIR is pkg, but must be an absolute path",
		"PREFIX=/a\tb": "PREFIX has a control character",
	} {
		for _, target := range []string{"install", "uninstall"} {
			if out := i.make(2, target, variable); !strings.Contains(out, target+": "+want+"\n") {
				t.Errorf("make %s %q says %s", target, variable, out)
			}
		}
	}
}

// aMissingProgram checks what is said where banger was not built and cannot be, as under sudo without Go.
func aMissingProgram(t *testing.T, i installer) {
	elsewhere := installer{t, t.TempDir(), i.prefix}
	if err := os.CopyFS(elsewhere.tree+"/scripts", os.DirFS(i.tree+"/scripts")); err != nil {
		t.Fatal(err)
	}
	out, code := run(t, elsewhere.tree, []string{"PATH=/usr/bin:/bin", "PREFIX=" + i.prefix}, "scripts/install", "install")
	if code != 1 || out != "install: bin/banger is missing or older than the sources: run make build first\n" {
		t.Errorf("it ends with %d: %s", code, out)
	}
}

// find skips the test if a program is missing. In CI that fails, because scripts/skips.txt does not have the test.
func find(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed: make deps", name)
		}
	}
}

// withDaemon returns an environment in which the daemon of a socket is the user's.
func withDaemon(socket string) []string {
	dir := filepath.Dir(socket)
	return append(os.Environ(), "BANGER_STATE_DIR="+dir, "BANGER_RUN_DIR="+dir, "TERM=dumb", "HOME="+dir)
}

// daemonOfBox runs a daemon that has the VM "box".
func daemonOfBox(t *testing.T) (socket string) {
	return apitest.Serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte(`[{"id":"0123","name":"box","state":"running"}]`))
	})
}

// completions are lines of which the last word is not complete, and their words when the shell has completed them.
var completions = map[string]string{
	"banger sto":                 "<banger><stop>",
	"banger stop b":              "<banger><stop><box>",
	"banger run --pull alw":      "<banger><run><--pull><always>",
	"banger run --pull=alw":      "<banger><run><--pull=always>",
	"banger ps -f state=run":     "<banger><ps><-f><state=running>",
	"banger run --ulimit nofi":   "<banger><run><--ulimit><nofile=>",
	"banger ssh root@b":          "<banger><ssh><root@box>",
	"banger cp bo":               "<banger><cp><box:>",
	"banger cp ./scripts/instal": "<banger><cp><./scripts/install>",
}

// typed types each line into a shell on a terminal, presses the key that completes it, and lets the shell print the
// words that the line then has.
func typed(i installer, setup string, shell ...string) {
	socket := daemonOfBox(i.T)
	const home, end = "\x01", "\x05" // Ctrl-A and Ctrl-E
	for line, want := range completions {
		keys := setup + "\n" + line + "\t" + home + "printf '<%s>' " + end + "; echo; exit\n"
		screen := ""
		for range 5 { // on a busy host banger may give up: a shell waits a second at most
			if screen = onTerminal(i, socket, keys, shell...); strings.Contains(screen, want) {
				break
			}
		}
		if !strings.Contains(screen, want) {
			i.Errorf("%q becomes\n%s", line, screen)
		}
	}
}

// onTerminal types keys into a shell on a terminal, and returns what the terminal shows until the shell ends.
func onTerminal(i installer, socket, keys string, shell ...string) string {
	ctx, cancel := context.WithTimeout(i.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, shell[0], shell[1:]...)
	cmd.Dir = i.tree
	cmd.Env = append(withDaemon(socket), "XDG_DATA_DIRS="+i.prefix+"/share:/usr/share",
		"PATH="+i.prefix+"/bin:"+os.Getenv("PATH"), "PREFIX="+i.prefix)
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 200})
	if err != nil {
		i.Fatal(err)
	}
	defer terminal.Close()
	if _, err := terminal.WriteString(keys); err != nil {
		i.Fatal(err)
	}
	var screen bytes.Buffer
	screen.ReadFrom(terminal) // the end of the shell is an error
	cmd.Wait()
	return screen.String()
}

func bashCompletes(t *testing.T, i installer) {
	find(t, "bash")
	typed(i, ". /usr/share/bash-completion/bash_completion", "bash", "--norc", "--noprofile", "-i")
}

func zshCompletes(t *testing.T, i installer) {
	find(t, "zsh")
	typed(i, `bindkey -e; fpath=($PREFIX/share/zsh/site-functions $fpath); autoload -U compinit; compinit -u -D`,
		"zsh", "-f", "-i")
}

func fishCompletes(t *testing.T, i installer) {
	find(t, "fish")
	socket := daemonOfBox(t)
	for line, want := range completions {
		if strings.Contains(line, "./") {
			continue // fish's own
		}
		env := append(withDaemon(socket), "XDG_DATA_DIRS="+i.prefix+"/share:/usr/share",
			"PATH="+i.prefix+"/bin:"+os.Getenv("PATH"))
		last := want[strings.LastIndex(want, "<")+1 : len(want)-1]
		out, code, word := "", 0, ""
		for range 5 { // as in typed
			out, code = run(t, i.tree, env, "fish", "-c", "complete -C '"+line+"'")
			first, _, _ := strings.Cut(strings.TrimSpace(out), "\n")
			if word, _, _ = strings.Cut(first, "\t"); code == 0 && word == last {
				break
			}
		}
		if code != 0 || word != last {
			t.Errorf("%q is completed by %q with %d", line, out, code)
		}
	}
}
