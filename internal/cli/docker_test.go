package cli

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"banger"
	"banger/internal/cli/command"
	"banger/internal/cli/spec"
	"banger/internal/testing/hosttest"
)

// TestDockersNamesWork types what hands know from docker.
func TestDockersNamesWork(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	digest := strings.TrimSpace(h.must("images", "-q"))
	h.check(
		line{args: "pull -q IMAGE", stdout: digest + "\n"},
		line{args: "tag IMAGE example.com/other:v1", stdout: "example.com/other:v1\n"},
		line{args: "images -q example.com/other", stdout: digest + "\n"},
		line{args: "images -q --no-trunc example.com/other:v1", stdout: digest + "\n"},
		line{args: "images -q other"},
		line{args: "history none", code: 1, stderr: "banger: there is no image \"none\" (see: banger image ls)\n"},
		line{args: "push none", code: 1, stderr: "banger: there is no image \"none\" (see: banger image ls)\n"},
		line{args: "rmi example.com/other:v1", stdout: "example.com/other:v1\n"},
		line{args: "info", stdout: "running: pid …"},
		line{args: "help images", stdout: "List images. The same as: banger image ls\n…"},
	)
	if saved := h.must("save", h.Image); len(saved) < 1000 {
		t.Errorf("save writes %d bytes", len(saved))
	}
}

// TestAllVMs starts, stops and removes all VMs at once.
func TestAllVMs(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	h.check(line{args: "rm --all"}, line{args: "start --all"}) // there are none
	for _, name := range []string{"one", "two"} {
		h.must("create", "--name", name, "--network", "none", h.Image, "sh", "-c", "while :; do sleep 1; done")
	}
	names := func(out string) string {
		list := strings.Fields(out)
		if len(list) == 2 && list[0] > list[1] {
			list[0], list[1] = list[1], list[0]
		}
		return strings.Join(list, " ")
	}
	for _, verb := range []string{"start", "stop", "rm"} {
		if got := names(h.must(verb, "-q", "--all")); got != "one two" {
			t.Errorf("%s --all prints %q", verb, got)
		}
	}
	h.check(line{args: "ps -aq"})
}

// TestEvents prints the present state, for a person and as JSON.
func TestEvents(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	h.must("create", "--name", "box", "--network", "none", h.Image)
	if got := strings.Fields(h.must("events", "--no-stream")); len(got) != 3 || got[1] != "box" || got[2] != "created" {
		t.Errorf("the state is %q", got)
	}
	var change banger.Change
	hosttest.Check(t, json.Unmarshal([]byte(h.must("events", "--no-stream", "--format", "json")), &change))
	if !change.State || len(change.VMs) != 1 {
		t.Errorf("as JSON it is %+v", change)
	}
	h.must("rename", "box", "crate")
	h.check(line{args: "events --no-stream --format {{.Names}}", stdout: "crate\n"},
		line{args: "events --no-stream --format {{.nothing}}", code: 1,
			stderr: "banger: --format: there is no field \"nothing\" …"})
	h.must("rm", "crate")
	got := h.must("events", "--no-stream", "--since", change.Cursor)
	if id := change.VMs[0].ID; got != id+" crate created\n"+id+" removed" {
		t.Errorf("behind the cursor there is %q", got)
	}
	h.check(line{args: "events --since x", code: 1, stderr: "banger: since is \"x\", which is not a cursor …"},
		line{args: "events --format yaml", code: 2,
			stderr: "banger: --format is \"yaml\", but must be table, json or a template such as '{{.name}}'\n"})
}

// TestInspectOfAnything looks for names of all kinds.
func TestInspectOfAnything(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	h.must("create", "--name", "box", "--network", "none", h.Image)
	kernel := strings.TrimSpace(h.must("kernel", "ls", "-q"))
	h.check(
		line{args: "inspect -f {{.name}} box", stdout: "box\n"},
		line{args: "inspect --format {{.State.Status}} box", stdout: "created\n"},
		line{args: "inspect -f {{.version}} " + kernel, stdout: "…"},
		line{args: "inspect --type image box", stdout: "[]\n", code: 1, stderr: "banger: there is no image \"box\" …"},
		line{args: "inspect --type thing box", code: 2,
			stderr: "banger: --type is \"thing\", but must be vm, image, network or kernel\n"},
		line{args: "vm inspect -f {{.Id}} " + kernel, code: 1, stderr: "banger: there is no VM called …"},
	)
	digest := strings.TrimSpace(h.must("images", "-q"))
	if got := strings.TrimSpace(h.must("inspect", "-f", "{{.Id}}", h.Image)); got != digest {
		t.Errorf("the image is %q, not %q", got, digest)
	}
	size := regexp.MustCompile(`^box [1-9][0-9.]* [KM]iB$`)
	if got := h.must("ps", "-a", "-s", "--format", "{{.Names}} {{.Size}}"); !size.MatchString(got) {
		t.Errorf("its size is %q", got)
	}
	if table := h.must("ps", "-a", "-s"); !regexp.MustCompile(`(?s)CREATED +SIZE\n.* ago +[1-9].*iB$`).MatchString(table) {
		t.Errorf("the table is %q", table)
	}
	h.must("create", "--name", "later", "--network", "none", h.Image)
	h.check(line{args: "ps -l --format {{.Names}}", stdout: "later\n"},
		line{args: "ps -n 5 --format {{.Names}}", stdout: "later\nbox\n"},
		line{args: "ps --format {{.Names}}"})
}

// TestThePageAboutDockerIsTrue compares docs/docker.md with the tree of commands: what works is there, and what is not
// there says so.
func TestThePageAboutDockerIsTrue(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/docker.md")
	hosttest.Check(t, err)
	h := newCLIHost(t)
	root := newRoot(&app{App: &command.App{}})
	row := regexp.MustCompile("(?m)^\\| `([a-z ]+)` \\| (works|differs|later|refused) \\| .*\\|$")
	states := map[string]string{}
	for _, m := range row.FindAllStringSubmatch(string(page), -1) {
		name, state := m[1], m[2]
		states[name] = state
		at, left, err := root.Find(strings.Fields(name))
		there := err == nil && len(left) == 0 && at.Runnable() && !at.Hidden
		if there != (state == "works" || state == "differs") {
			t.Errorf("the page says that %q %s", name, state)
		}
		if !there {
			got := h.banger(append(strings.Fields(name), "x")...)
			if got.code != 1 || !strings.HasPrefix(got.stderr, "banger: ") {
				t.Errorf("%q: %+v", name, got)
			}
		}
	}
	for _, n := range dockerNames {
		if states[n.name] == "" {
			t.Errorf("the page does not name %q", n.name)
		}
	}
	for _, m := range missing {
		if states[m.name] != "later" && states[m.name] != "refused" {
			t.Errorf("the page says that %q is %q", m.name, states[m.name])
		}
	}
}

// TestTheListOfDockersFlags compares docs/docker.md with the flags of docker's run that banger's lacks.
func TestTheListOfDockersFlags(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/docker.md")
	hosttest.Check(t, err)
	_, list, _ := strings.Cut(string(text), "These flags of docker are errors")
	var listed []string
	for _, m := range regexp.MustCompile("`--?([a-z0-9-]+)`").FindAllStringSubmatch(list, -1) {
		listed = append(listed, m[1])
	}
	if want := spec.LaterFlags(); !slices.Equal(listed, want) {
		t.Errorf("docs/docker.md lists %q, and not %q", listed, want)
	}
	run := newRun(&app{App: &command.App{}})
	for _, name := range spec.LaterFlags() {
		if run.Flags().Lookup(name) != nil || len(name) == 1 && run.Flags().ShorthandLookup(name) != nil {
			t.Errorf("run has the flag %s", name)
		}
		if spec.LaterFlag(name) == "" {
			t.Errorf("nothing is said about %s", name)
		}
	}
}
