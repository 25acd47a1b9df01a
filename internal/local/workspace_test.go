package local_test

import (
	"encoding/json"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"banger"
	"banger/internal/api/client"
	"banger/internal/exchange"
	"banger/internal/host"
	"banger/internal/local"
	"banger/internal/testing/apitest"
	"banger/internal/workspace"
)

const odd = "odd\xff\n<b>"

// world is a user with a repository whose working tree is in the VM box, and a browser that asks about it.
type world struct {
	t    *testing.T
	repo string
	home workspace.Home
	l    *local.Local
	apitest.Guest
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
	c := client.New(apitest.Serve(t, w.Serve))
	w.l = &local.Local{Paths: host.Paths{State: t.TempDir()}, Client: c}
	t.Cleanup(w.l.Close)
	w.home = exchange.HomeIn(w.l.Paths.State)
	o := workspace.Options{Source: w.repo, Path: "/workspace", Name: "workspace", Depth: 5}
	plan, err := w.home.Plan(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer plan.Drop()
	if _, err := exchange.Bring(t.Context(), c, "box", "", plan); err != nil {
		t.Fatal(err)
	}
	return w
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

// ask makes a request, whose answer is JSON.
func (w *world) ask(method, path, body string, into any) *banger.Error {
	w.t.Helper()
	rec := httptest.NewRecorder()
	w.l.Handler().ServeHTTP(rec, httptest.NewRequest(method, "/ui/local/workspaces/box"+path, strings.NewReader(body)))
	if rec.Code >= 400 {
		var failed struct{ Error *banger.Error }
		if err := json.Unmarshal(rec.Body.Bytes(), &failed); err != nil {
			w.t.Fatalf("%s %s: %d %s", method, path, rec.Code, rec.Body)
		}
		return failed.Error
	}
	if into != nil {
		if err := json.Unmarshal(rec.Body.Bytes(), into); err != nil {
			w.t.Fatalf("%s %s: %s: %v", method, path, rec.Body, err)
		}
	}
	return nil
}

// look captures the workspace, and returns where the capture is.
func (w *world) look() (c local.Capture, at string) {
	w.t.Helper()
	if err := w.ask("POST", "/workspace/captures", "", &c); err != nil {
		w.t.Fatal(err)
	}
	return c, "/workspace/captures/" + c.ID
}

// refuses checks how a request fails.
func (w *world) refuses(method, path, body string, code banger.Code, part string) {
	w.t.Helper()
	err := w.ask(method, path, body, nil)
	if err == nil || err.Code != code || !strings.Contains(err.Error(), part) {
		w.t.Errorf("%s %s %s: %v, not %s with %q", method, path, body, err, code, part)
	}
}

// quarantines returns what captures have on the disk.
func (w *world) quarantines() []string {
	list, err := filepath.Glob(filepath.Join(w.home.Dir, "*", "store.git", "tmp-*"))
	if err != nil {
		w.t.Fatal(err)
	}
	return list
}

// words returns changes in a form for comparison.
func words(list []local.Change) string {
	var all []string
	for _, c := range list {
		all = append(all, c.Status[:1]+" "+string(c.Path))
	}
	return strings.Join(all, ", ")
}

// TestWorkspacesAreListed: a workspace that this host has no record of says so.
func TestWorkspacesAreListed(t *testing.T) {
	w := newWorld(t)
	w.Has = append(w.Has, banger.Workspace{ID: strings.Repeat("2", 32), Name: "second", Source: "elsewhere"})
	var list []local.Workspace
	if err := w.ask("GET", "", "", &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || !list[0].Known || list[0].Source != w.repo || list[1].Known || list[1].Source != "elsewhere" {
		t.Errorf("the list is %+v", list)
	}
	w.refuses("POST", "/second/captures", "", banger.CodeNotFound, "no record")
	w.refuses("POST", "/third/captures", "", banger.CodeNotFound, `no workspace "third"`)
}

// TestWhatWasLookedAtIsExported: not what the VM has changed since.
func TestWhatWasLookedAtIsExported(t *testing.T) {
	w := newWorld(t)
	w.Files = map[string]string{"file": "changed\n", "gone": "", odd: "new\n", "src/Makefile": "all:\n"}
	c, at := w.look()
	if got := words(c.Changes); got != "A src/Makefile, M file, D gone, A "+odd || c.Total != 4 {
		t.Errorf("the changes are %q", got)
	}
	if len(c.Hazards) != 1 || string(c.Hazards[0].Path) != "src/Makefile" || c.Source != w.repo || c.Branch != "main" {
		t.Errorf("the capture is %+v", c)
	}
	w.Files["file"] = "changed later\n"
	for body, part := range map[string]string{
		`{"branch":""}`: "is no name of a branch", `{"branch":"-x"}`: "is no name of a branch",
		`{"branch":"a\u0000b"}`: "is no name of a branch", `{"branch":"../x"}`: "is no name of a branch",
		`{"branch":1}`: "cannot read the request body",
	} {
		w.refuses("POST", at+"/export", body, banger.CodeInvalid, part)
	}
	w.refuses("POST", at+"/export", `{"branch":"main"}`, banger.CodeConflict, "the branch main exists")
	w.refuses("POST", at+"/export", `{"branch":"main","force":true}`, banger.CodeConflict, "is checked out")
	var made local.Exported
	if err := w.ask("POST", at+"/export", `{"branch":"made"}`, &made); err != nil {
		t.Fatal(err)
	}
	if made.Branch != "made" || !made.Remaining || len(made.Hazards) != 1 {
		t.Errorf("the answer is %+v", made)
	}
	if got := w.sh("git show made:file; git log -1 --format=%an made; git status --porcelain"); got != "changed\nAda\n" {
		t.Errorf("the branch has %q", got)
	}
}

// TestBothSidesOfAFile: with their kinds, and with names of any bytes.
func TestBothSidesOfAFile(t *testing.T) {
	w := newWorld(t)
	w.Files = map[string]string{"file": "changed\n", "gone": "", odd: "new\n", "nul": "a\x00", "latin": "caf\xe9",
		"large": strings.Repeat("0123456\n", 1<<17+1)}
	_, at := w.look()
	for path, want := range map[string][2]string{
		"file":             {"text 18 1\n2\n3\n4\n5\n6\n7\n8\n9\n", "text 8 changed\n"},
		"gone":             {"text 2 x\n", ""},
		"odd%FF%0A%3Cb%3E": {"", "text 4 new\n"},
		"nul":              {"", "binary 2 "},
		"latin":            {"", "binary 4 "},
		"large":            {"", "large 1048584 "},
	} {
		var f local.File
		if err := w.ask("GET", at+"/file?path="+path, "", &f); err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if got := [2]string{sideWords(f.Old), sideWords(f.New)}; got != want {
			t.Errorf("%s is %.300q, not %q", path, got, want)
		}
	}
	for _, path := range []string{"", "../../etc/passwd", "%00", "HEAD", "nonesuch"} {
		w.refuses("GET", at+"/file?path="+path, "", banger.CodeNotFound, "is not among the changed files")
	}
}

func sideWords(s *local.Side) string {
	if s == nil {
		return ""
	}
	size, _ := json.Marshal(s.Size)
	return s.Kind + " " + string(size) + " " + string(s.Data)
}

// TestAPullNeedsThatHazardsWereLookedAt: and lists conflicts instead of changing anything.
func TestAPullNeedsThatHazardsWereLookedAt(t *testing.T) {
	w := newWorld(t)
	w.Files = map[string]string{"file": "changed\n", "Makefile": "all:\n"}
	_, at := w.look()
	var would local.Pulled
	if err := w.ask("POST", at+"/pull", `{"dry_run":true}`, &would); err != nil {
		t.Fatal(err)
	}
	if words(would.Changes) != "A Makefile, M file" || len(would.Hazards) != 1 || len(would.Conflicts) != 0 {
		t.Errorf("it would be %+v", would)
	}
	w.refuses("POST", at+"/pull", `{}`, banger.CodeConflict, "Makefile comes with the changes")
	w.refuses("POST", at+"/pull", `{"looked":["ZmlsZQ=="]}`, banger.CodeConflict, "Makefile comes with the changes")
	w.sh("echo mine >file")
	if err := w.ask("POST", at+"/pull", `{"dry_run":true}`, &would); err != nil || len(would.Conflicts) != 1 {
		t.Errorf("with a change of the host it would be %+v, %v", would, err)
	}
	w.refuses("POST", at+"/pull", `{"looked":["TWFrZWZpbGU="]}`, banger.CodeConflict, "1 files conflict")
	if got := w.sh("git status --porcelain"); got != " M file\n" {
		t.Errorf("the working tree is %q", got)
	}
	w.sh("git checkout -q file")
	if err := w.ask("POST", at+"/pull", `{"looked":["TWFrZWZpbGU="]}`, nil); err != nil {
		t.Fatal(err)
	}
	if got := w.sh("cat file Makefile"); got != "changed\nall:\n" {
		t.Errorf("the working tree has %q", got)
	}
	var now local.Capture
	if err := w.ask("GET", at, "", &now); err != nil || words(now.Host.Changes) != "M file" {
		t.Errorf("this host is now %+v, %v", now.Host, err) // a new file is no change before git tracks it
	}
}

// TestSyncAndReset: what has changed on this host comes in, and what the VM has changed is taken back.
func TestSyncAndReset(t *testing.T) {
	w := newWorld(t)
	w.sh("echo 10 >>file; rm gone")
	w.Files = map[string]string{"file": "conflict\n"}
	var done local.Synced
	if err := w.ask("POST", "/workspace/sync", "", &done); err != nil || len(done.Conflicts) != 1 {
		t.Errorf("a sync with a conflict is %+v, %v", done, err)
	}
	if err := w.ask("POST", "/workspace/reset", "", nil); err != nil || w.Files != nil {
		t.Errorf("after the reset there is %v, %v", w.Files, err)
	}
	if err := w.ask("POST", "/workspace/sync", "", &done); err != nil || words(done.Changes) != "M file, D gone" ||
		strings.Join(w.Removed, " ") != "gone" {
		t.Errorf("the sync is %+v, %v, and removes %q", done, err, w.Removed)
	}
	w.State = banger.StateStopped
	w.refuses("POST", "/workspace/reset", "", banger.CodeConflict, "cannot reset a workspace of VM box")
	w.refuses("POST", "/workspace/sync", "", banger.CodeConflict, "cannot change a workspace of VM box")
}

// TestACaptureEnds: when it is dropped, and with the UI. Nothing of it stays on the disk.
func TestACaptureEnds(t *testing.T) {
	w := newWorld(t)
	_, first := w.look()
	_, second := w.look()
	if len(w.quarantines()) == 0 {
		t.Fatal("there is no quarantine")
	}
	if err := w.ask("DELETE", first, "", nil); err != nil {
		t.Error(err)
	}
	for _, request := range []string{"GET ", "GET /file?path=file", "POST /export", "POST /pull", "DELETE "} {
		method, path, _ := strings.Cut(request, " ")
		w.refuses(method, first+path, `{}`, banger.CodeNotFound, "look at the workspace again")
	}
	w.l.Close()
	w.refuses("GET", second, "", banger.CodeNotFound, "look at the workspace again")
	w.refuses("POST", "/workspace/captures", "", banger.CodeUnavailable, "the web UI ends")
	if left := w.quarantines(); len(left) > 0 {
		t.Errorf("on the disk is %q", left)
	}
}
