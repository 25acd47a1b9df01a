package workspace

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/cli/command"
	"banger/internal/host"
	"banger/internal/testing/apitest"
)

// world is a user with a repository, and a VM that says what a test wants.
type world struct {
	t    *testing.T
	app  *command.App
	repo string
	apitest.Guest

	stdout, stderr bytes.Buffer
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, repo: t.TempDir()}
	config := filepath.Join(t.TempDir(), "gitconfig")
	if err := os.WriteFile(config, []byte("[user]\n\tname = Ada\n\temail = ada@example.com\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GIT_CONFIG_GLOBAL", config)
	t.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	w.sh("git init -q -b main; seq 9 >file; echo x >gone; git add .; git commit -qm first")
	socket := apitest.Serve(t, w.Serve)
	w.app = &command.App{Stdin: must(os.Open(os.DevNull)), Stdout: &w.stdout, Stderr: &w.stderr}
	w.app.Reach(host.Paths{State: t.TempDir(), Run: filepath.Dir(socket)})
	return w
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (w *world) sh(script string) string {
	w.t.Helper()
	cmd := exec.Command("sh", "-ec", script)
	cmd.Dir = w.repo
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// run runs a command line of banger workspace, in which REPO is the repository.
func (w *world) run(line string) error {
	w.stdout.Reset()
	w.stderr.Reset()
	var args []string
	for arg := range strings.FieldsSeq(line) {
		args = append(args, strings.ReplaceAll(arg, "REPO", w.repo))
	}
	c := New(w.app)
	return execute(c, args)
}

func execute(c *cobra.Command, args []string) error {
	c.SetArgs(args)
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetOut(io.Discard)
	return c.ExecuteContext(context.Background())
}

// wants checks what a command line says, or how it fails.
func (w *world) wants(line, stdout, failure string) {
	w.t.Helper()
	err := w.run(line)
	if failure == "" && err != nil || failure != "" && (err == nil || !strings.Contains(err.Error(), failure)) {
		w.t.Errorf("%s: %v, not %q", line, err, failure)
	}
	if stdout != "" && w.stdout.String() != stdout {
		w.t.Errorf("%s says\n%s\nnot\n%s", line, &w.stdout, stdout)
	}
}

// TestALife goes through the commands with a VM that behaves.
func TestALife(t *testing.T) {
	w := newWorld(t)
	w.wants("diff box", "", "VM box has no workspace")
	w.wants("prepare box REPO --dry-run", "", "")
	if len(w.Has) > 0 || !strings.Contains(w.stdout.String(), "files") {
		t.Errorf("--dry-run says %s", &w.stdout)
	}
	w.wants("prepare box REPO", "/workspace\n", "")
	if w.Image < 1000 {
		t.Errorf("the file system has %d bytes", w.Image)
	}
	w.wants("ls box", "", "")
	w.wants("diff box", "", "")
	w.Files = map[string]string{"file": "changed\n", "gone": "", "\x1b[2Jred": "x"}
	w.wants("diff box", "A \"\\033[2Jred\"\nM file\nD gone\n", "")
	w.wants("diff --name-only box", "\"\\033[2Jred\"\nfile\ngone\n", "")
	w.wants("diff -p --stat box", "", "only one of")
	w.wants("export box --branch made", "made\n", "")
	w.wants("export box --branch made", "", "the branch made exists")
	w.wants("export box --branch made -o x", "", "two ways out")
	w.wants("export box --branch ..", "", "no name of a branch")
	if got := w.sh("git diff --name-only main made"); got != "\"\\033[2Jred\"\nfile\ngone\n" {
		t.Errorf("the branch changes %s", got)
	}
	w.wants("status box", "", "")
	if got := w.stdout.String(); !strings.Contains(got, "in the VM:\n") ||
		!strings.Contains(got, "on this host: nothing") {
		t.Errorf("status says %s", got)
	}
	w.wants("pull --dry-run box", "A \"\\033[2Jred\"\nM file\nD gone\n", "")
	if got := w.sh("git status --porcelain"); got != "" {
		t.Errorf("--dry-run changed %s", got)
	}
	w.wants("pull box", "", "")
	if got := w.sh("cat file; ls | wc -l"); got != "changed\n2\n" {
		t.Errorf("the working tree is %s", got)
	}
}

// TestBothSides: a change on the host comes in, a conflict does not, and a moved HEAD is told.
func TestBothSides(t *testing.T) {
	w := newWorld(t)
	w.wants("prepare box REPO", "", "")
	w.sh("echo 10 >>file; rm gone; git commit -qam second")
	if err := Enter(t.Context(), w.app, w.app.Client, "box", false); err != nil ||
		!strings.Contains(w.stderr.String(), "has moved to") {
		t.Errorf("%v, %s", err, &w.stderr)
	}
	w.Files = map[string]string{"file": "conflict\n"}
	w.wants("sync box", "", "1 files conflict, so the VM's working tree was not changed")
	w.Files = nil
	w.wants("sync box", "M file\nD gone\n", "")
	if strings.Join(w.Removed, " ") != "gone" {
		t.Errorf("removed are %q", w.Removed)
	}
	w.stderr.Reset()
	if err := Enter(t.Context(), w.app, w.app.Client, "box", false); err != nil || w.stderr.Len() > 0 {
		t.Errorf("%v, %s", err, &w.stderr)
	}
	w.Files = map[string]string{"file": w.sh("cat file"), "gone": "", "Makefile": "all:\n"}
	w.wants("pull box", "", "this needs a yes")
	if !strings.Contains(w.stderr.String(), "Makefile: a package manager or a build runs its scripts") {
		t.Errorf("the hazards are %s", &w.stderr)
	}
	w.wants("pull --yes box", "A Makefile\n", "")
}

// TestAVMThatLies of its workspaces is not believed.
func TestAVMThatLies(t *testing.T) {
	w := newWorld(t)
	w.wants("prepare box REPO", "", "")
	true1 := w.Has[0]
	for failure, change := range map[string]func(*banger.Workspace){
		"no record of the workspace":           func(b *banger.Workspace) { b.ID = strings.Repeat("0", 32) },
		"this host has no record":              func(b *banger.Workspace) { b.ID = "../../../../etc" },
		"what this host has not prepared":      func(b *banger.Workspace) { b.Name = "other" },
		"VM box says of workspace workspace":   func(b *banger.Workspace) { b.Baseline = strings.Repeat("1", 40) },
		"is not mounted in VM box: it is gone": func(b *banger.Workspace) { b.Error = "it is gone" },
	} {
		lie := true1
		change(&lie)
		w.Has = []banger.Workspace{lie}
		w.wants("export box --branch x", "", failure)
	}
	w.Has = []banger.Workspace{true1}
	w.Report = &banger.Error{Code: banger.CodeGuest, Message: "the guest \x1b[2Jbroke"}
	w.wants("diff box", "", `the guest \x1b[2Jbroke`)
	w.Report = "no report"
	w.wants("diff box", "", "did not say that these are all changes")
	w.Report = banger.WorkspaceReport{Skipped: 1, Notes: []string{"a \x1b[2J note"}}
	w.wants("diff box", "", "")
	if w.stderr.String() != "banger: a \\x1b[2J note\n" {
		t.Errorf("the notes are %q", &w.stderr)
	}
	w.Has = append(w.Has, banger.Workspace{ID: strings.Repeat("2", 32), Name: "second"})
	w.Has[0].Name = "first"
	w.wants("diff box", "", "VM box has several workspaces (name one of them: box/first, box/second)")
}

// TestWhatIsTypedWrong fails before anything is asked of a VM.
func TestWhatIsTypedWrong(t *testing.T) {
	w := newWorld(t)
	for line, failure := range map[string]string{
		"prepare":                     "do not fit",
		"prepare box REPO --from x":   "give a --branch",
		"prepare box REPO --depth -1": "must be 0 or more",
		"prepare box REPO --name a/b": "name of a workspace",
		"fork box":                    "needs a VM and a command",
		"status box --format xml":     "must be table or json",
		"keep box":                    "do not fit",
		"reset box other":             "do not fit",
	} {
		w.Asked = nil
		w.wants(line, "", failure)
		for _, asked := range w.Asked {
			if strings.HasPrefix(asked, "POST") {
				t.Errorf("%s asks %s", line, asked)
			}
		}
	}
	w.wants("prepare box /nonesuch", "", "there is no directory")
	w.wants("prepare box REPO/file", "", "is no directory")
	w.wants("prepare box REPO --branch x --from nonesuch", "", `has no commit "nonesuch"`)
	w.wants("prepare box REPO --branch -x", "", "no name of a branch")
}

// TestGitAsks speaks the protocol of git's helpers, and has git itself fetch.
func TestGitAsks(t *testing.T) {
	w := newWorld(t)
	w.wants("prepare box REPO", "", "")
	w.Files = map[string]string{"new": "x\n"}
	ask := func(url, lines string) (string, error) {
		var out bytes.Buffer
		r := &remote{app: w.app, client: w.app.Client, url: url}
		defer r.close()
		err := r.serve(t.Context(), strings.NewReader(lines), &out)
		return out.String(), err
	}
	out, err := ask("banger://box", "capabilities\nlist\n\n")
	head := strings.TrimSpace(w.sh("git rev-parse HEAD"))
	if err != nil || !strings.Contains(out, head+" refs/heads/main\n") ||
		!strings.Contains(out, " refs/banger/working\n@refs/heads/main HEAD\n\n") {
		t.Errorf("git hears %q, %v", out, err)
	}
	for url, lines := range map[string]string{"banger://": "list\n", "http://box": "list\n", "banger://box/x": "list\n",
		"banger://box": "push main:main\n", "banger://box/workspace": "fetch 0123 refs/heads/main\n\n"} {
		if out, err := ask(url, lines); err == nil {
			t.Errorf("%s %q: %q", url, lines, out)
		}
	}
}
