package local_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger"
	"banger/internal/api/client"
	"banger/internal/config"
	"banger/internal/host"
	"banger/internal/local"
	"banger/internal/private"
)

// project is a user with a repository that a VM works on, and a daemon that keeps the VM's policy.
type project struct {
	t      *testing.T
	local  local.Local
	root   string        // of the repository
	policy banger.Policy // of the VM
	works  bool          // the VM has the workspace
}

func newProject(t *testing.T) *project {
	dir := t.TempDir()
	w := &project{t: t, root: filepath.Join(dir, "repository"), works: true, policy: banger.Policy{Default: banger.Deny,
		Rules: []banger.Rule{{Action: banger.Allow, To: "*.debian.org"}}}}
	id := strings.Repeat("a", 32)
	record, _ := json.Marshal(map[string]string{"id": id, "name": "workspace", "source": w.root, "baseline": "b"})
	w.write(filepath.Join(dir, "state", "workspaces", id, "record.json"), string(record))
	w.check(os.MkdirAll(w.root, 0o755))
	mux := http.NewServeMux()
	answer := func(v any) http.HandlerFunc {
		return func(to http.ResponseWriter, _ *http.Request) { w.check(json.NewEncoder(to).Encode(v)) }
	}
	vm := func() banger.VM { return banger.VM{ID: "1", Name: "web", Spec: banger.Spec{Policy: &w.policy}} }
	mux.HandleFunc("GET /v1/vms/{vm}", func(to http.ResponseWriter, r *http.Request) { answer(vm())(to, r) })
	mux.HandleFunc("GET /v1/vms/{vm}/workspaces", func(to http.ResponseWriter, r *http.Request) {
		list := []banger.Workspace{}
		if w.works {
			list = append(list, banger.Workspace{ID: id, Name: "workspace", Baseline: "b"})
		}
		answer(list)(to, r)
	})
	mux.HandleFunc("PUT /v1/vms/{vm}/policy", func(to http.ResponseWriter, r *http.Request) {
		w.policy = banger.Policy{}
		w.check(json.NewDecoder(r.Body).Decode(&w.policy))
		answer(vm())(to, r)
	})
	socket := filepath.Join(dir, "api.sock")
	ln, err := private.Listen(socket)
	w.check(err)
	srv := &http.Server{Handler: mux}
	go srv.Serve(ln)
	t.Cleanup(func() { srv.Close() })
	w.local = local.Local{Paths: host.Paths{State: filepath.Join(dir, "state")}, Client: client.New(socket),
		Hold: func(context.Context) (func(), error) { return func() {}, nil }}
	return w
}

func (w *project) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *project) write(path, text string) {
	w.t.Helper()
	w.check(os.MkdirAll(filepath.Dir(path), 0o700))
	w.check(os.WriteFile(path, []byte(text), 0o600))
}

// file returns the repository's banger.toml, or "" without one.
func (w *project) file() string {
	text, _ := os.ReadFile(filepath.Join(w.root, config.ProjectFile))
	return string(text)
}

// state returns whether the user has allowed the file as it is.
func (w *project) state() config.Verdict {
	reviews := config.Reviews{Dir: filepath.Join(w.local.Paths.State, "reviews")}
	return reviews.State(filepath.Join(w.root, config.ProjectFile), []byte(w.file()))
}

// allow asks for a rule, and returns the status and the answer.
func (w *project) allow(body string) (int, string) {
	rec := httptest.NewRecorder()
	r := httptest.NewRequest("POST", "/ui/local/vms/web/allow", strings.NewReader(body))
	w.local.Handler().ServeHTTP(rec, r)
	return rec.Code, rec.Body.String()
}

const rule = `"rule":{"action":"allow","to":"new.example","protocol":"tcp","ports":["443"]}`

// TestARuleIsAllowedForAProject: the file gets it and is obeyed, and the VM's policy gets it in front.
func TestARuleIsAllowedForAProject(t *testing.T) {
	w := newProject(t)
	code, said := w.allow(`{"dry_run":true,` + rule + `}`)
	if code != 200 || !strings.Contains(said, `+    \"new.example tcp:443\",\n`) || w.file() != "" {
		t.Errorf("a dry run: %d %s, and the file is %q", code, said, w.file())
	}
	if code, said := w.allow(`{` + rule + `}`); code != 200 {
		t.Fatalf("it is refused: %d %s", code, said)
	}
	if it, _, err := config.LoadProject(w.root); err != nil || it.Policy.Allow[1] != "*.debian.org" {
		t.Errorf("the file is %s, %v", w.file(), err)
	}
	state, first := w.state(), w.policy.Rules[0].String()
	if state != config.Allowed || first != "allow new.example tcp:443" {
		t.Errorf("the file is %s, and the VM's policy begins with %q", state, first)
	}
}

// TestWhatIsNotAllowedForAProject: nothing is written then, and the VM's policy stays.
func TestWhatIsNotAllowedForAProject(t *testing.T) {
	for name, c := range map[string]struct {
		file  string // of the repository
		works bool
		body  string
		want  string // a part of the error
	}{
		"a file that nobody reviewed": {"image = \"x\"\n", true, `{` + rule + `}`, "banger config allow"},
		"a VM without a project":      {"", false, `{` + rule + `}`, "has no workspace"},
		"a rule that denies":          {"", true, `{"rule":{"action":"deny","to":"any"}}`, "allows nothing"},
		"a rule that is none":         {"", true, `{"rule":{"action":"allow","to":"\" ]\nimage = \"x"}}`, "invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newProject(t)
			w.works = c.works
			if c.file != "" {
				w.write(filepath.Join(w.root, config.ProjectFile), c.file)
			}
			code, said := w.allow(c.body)
			if code < 400 || !strings.Contains(said, c.want) || w.file() != c.file || len(w.policy.Rules) != 1 {
				t.Errorf("it is answered %d %s, and the file is %q", code, said, w.file())
			}
		})
	}
}
