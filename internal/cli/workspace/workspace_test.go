package workspace

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api/wire"
	"banger/internal/cli/command"
	"banger/internal/frame"
	"banger/internal/host"
	"banger/internal/testing/apitest"
)

// world is a user with a repository, and a VM that says what a test wants.
type world struct {
	t    *testing.T
	app  *command.App
	repo string

	has     []banger.Workspace
	files   map[string]string // what has changed in the VM: contents by path; "" is a file that is gone
	report  any               // the end of the changes
	image   int               // bytes of the file system that came
	removed []string
	asked   []string

	stdout, stderr bytes.Buffer
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, repo: t.TempDir(), report: banger.WorkspaceReport{}}
	config := filepath.Join(t.TempDir(), "gitconfig")
	if err := os.WriteFile(config, []byte("[user]\n\tname = Ada\n\temail = ada@example.com\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GIT_CONFIG_GLOBAL", config)
	t.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	w.sh("git init -q -b main; seq 9 >file; echo x >gone; git add .; git commit -qm first")
	socket := apitest.Serve(t, w.serve)
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

// serve answers as a daemon with one VM.
func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	w.asked = append(w.asked, r.Method+" "+r.URL.Path)
	last := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	switch {
	case r.Method == "POST" && last == "workspaces":
		var ask wire.WorkspaceRequest
		json.NewDecoder(r.Body).Decode(&ask)
		conn := apitest.Upgrade(rw, r)
		defer conn.Close()
		it := banger.Workspace{ID: ask.ID, Name: ask.Name, Path: ask.Path, Baseline: ask.Baseline, Source: ask.Source,
			UID: 7, Created: time.Now()}
		frame.WriteJSON(conn, frame.Response, it)
		for frames := frame.NewReader(conn); ; {
			kind, p, err := frames.Next()
			if err != nil {
				return
			}
			if w.image += len(p); kind == frame.StdinEOF {
				break
			}
		}
		w.has = append(w.has, it)
		frame.WriteJSON(conn, frame.Exit, it)
	case last == "workspaces":
		json.NewEncoder(rw).Encode(w.has)
	case last == "changes":
		w.changes(rw, r)
	case last == "baseline":
		var ask wire.BaselineRequest
		json.NewDecoder(r.Body).Decode(&ask)
		for _, path := range ask.Removed {
			w.removed = append(w.removed, string(path))
		}
		w.has[0].Baseline = ask.Baseline
		json.NewEncoder(rw).Encode(w.has[0])
	case last == "files":
		conn := apitest.Upgrade(rw, r)
		defer conn.Close()
		for frames := frame.NewReader(conn); ; {
			if kind, _, err := frames.Next(); err != nil || kind == frame.StdinEOF {
				break
			}
		}
		frame.WriteJSON(conn, frame.Response, banger.CopyReport{})
	default:
		json.NewEncoder(rw).Encode(banger.VM{ID: "0123456789ab", Name: "box", State: banger.StateRunning})
	}
}

// changes sends what has changed in the VM.
func (w *world) changes(rw http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	conn := apitest.Upgrade(rw, r)
	defer conn.Close()
	for frames := frame.NewReader(conn); ; {
		if kind, _, err := frames.Next(); err != nil || kind == frame.StdinEOF {
			break
		}
	}
	out := tar.NewWriter(stdoutFrames{conn})
	for name, text := range w.files {
		h := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text)), Format: tar.FormatPAX}
		if text == "" {
			h.Name = filepath.Join(filepath.Dir(name), ".wh."+filepath.Base(name))
		}
		out.WriteHeader(h)
		io.WriteString(out, text)
	}
	out.Close()
	if e, ok := w.report.(*banger.Error); ok {
		frame.WriteJSON(conn, frame.Error, e)
		return
	}
	frame.WriteJSON(conn, frame.Exit, w.report)
}

type stdoutFrames struct{ w io.Writer }

func (s stdoutFrames) Write(p []byte) (int, error) { return len(p), frame.Write(s.w, frame.Stdout, p) }

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
	if len(w.has) > 0 || !strings.Contains(w.stdout.String(), "files") {
		t.Errorf("--dry-run says %s", &w.stdout)
	}
	w.wants("prepare box REPO", "/workspace\n", "")
	if w.image < 1000 {
		t.Errorf("the file system has %d bytes", w.image)
	}
	w.wants("ls box", "", "")
	w.wants("diff box", "", "")
	w.files = map[string]string{"file": "changed\n", "gone": "", "\x1b[2Jred": "x"}
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
	w.files = map[string]string{"file": "conflict\n"}
	w.wants("sync box", "", "1 files conflict, so the VM's working tree was not changed")
	w.files = nil
	w.wants("sync box", "M file\nD gone\n", "")
	if strings.Join(w.removed, " ") != "gone" {
		t.Errorf("removed are %q", w.removed)
	}
	w.stderr.Reset()
	if err := Enter(t.Context(), w.app, w.app.Client, "box", false); err != nil || w.stderr.Len() > 0 {
		t.Errorf("%v, %s", err, &w.stderr)
	}
	w.files = map[string]string{"file": w.sh("cat file"), "gone": "", "Makefile": "all:\n"}
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
	true1 := w.has[0]
	for failure, change := range map[string]func(*banger.Workspace){
		"no record of the workspace":           func(b *banger.Workspace) { b.ID = strings.Repeat("0", 32) },
		"this host has no record":              func(b *banger.Workspace) { b.ID = "../../../../etc" },
		"what this host has not prepared":      func(b *banger.Workspace) { b.Name = "other" },
		"VM box says of workspace workspace":   func(b *banger.Workspace) { b.Baseline = strings.Repeat("1", 40) },
		"is not mounted in VM box: it is gone": func(b *banger.Workspace) { b.Error = "it is gone" },
	} {
		lie := true1
		change(&lie)
		w.has = []banger.Workspace{lie}
		w.wants("export box --branch x", "", failure)
	}
	w.has = []banger.Workspace{true1}
	w.report = &banger.Error{Code: banger.CodeGuest, Message: "the guest \x1b[2Jbroke"}
	w.wants("diff box", "", `the guest \x1b[2Jbroke`)
	w.report = "no report"
	w.wants("diff box", "", "did not say that these are all changes")
	w.report = banger.WorkspaceReport{Skipped: 1, Notes: []string{"a \x1b[2J note"}}
	w.wants("diff box", "", "")
	if w.stderr.String() != "banger: a \\x1b[2J note\n" {
		t.Errorf("the notes are %q", &w.stderr)
	}
	w.has = append(w.has, banger.Workspace{ID: strings.Repeat("2", 32), Name: "second"})
	w.has[0].Name = "first"
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
		w.asked = nil
		w.wants(line, "", failure)
		for _, asked := range w.asked {
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
	w.files = map[string]string{"new": "x\n"}
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
