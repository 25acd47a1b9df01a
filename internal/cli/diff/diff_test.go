package diff

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"banger"
	"banger/internal/cli/command"
	"banger/internal/host"
	"banger/internal/testing/apitest"
)

// patch is one of a file's lines.
const patch = "--- a/etc/lines\n+++ b/etc/lines\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n+\t\x1b[31m\n three\n"

// changes is one of each kind.
func changes() []banger.FileChange {
	file := func(mode, uid uint32, size int64) *banger.FileState {
		return &banger.FileState{Mode: mode, UID: uid, GID: 5, Size: size}
	}
	return []banger.FileChange{
		{Path: "/added", Change: banger.FileAdded, After: file(0o100644, 0, 0)},
		{Path: "/bin/x", Change: banger.FileChanged, Differs: []string{banger.DiffersContent, banger.DiffersMode},
			Before: file(0o100644, 0, 10), After: file(0o104755, 0, 12), Binary: true},
		{Path: "/dir", Change: banger.FileChanged, Differs: []string{banger.DiffersType, banger.DiffersXattrs},
			Before: file(0o040755, 0, 0), After: file(0o120777, 0, 0)},
		{Path: "/dev", Change: banger.FileChanged, Differs: []string{banger.DiffersDevice},
			Before: &banger.FileState{Device: "1:3"}, After: &banger.FileState{Device: "1:5"}},
		{Path: "/etc/lines", Change: banger.FileChanged, Differs: []string{banger.DiffersContent},
			Before: file(0o100644, 0, 14), After: file(0o100644, 0, 12), Patch: patch},
		{Path: "/link", Change: banger.FileChanged, Differs: []string{banger.DiffersTarget, banger.DiffersOwner},
			Before: &banger.FileState{Target: "a b"}, After: &banger.FileState{Target: "x\n", UID: 1000, GID: 5}},
		{Path: "/new/zeros", Change: banger.FileAdded, After: file(0o100644, 0, 7), Binary: true},
		{Path: "/o\ufffdd", RawPath: []byte("/o\xffd\n\x1b"), Change: banger.FileRemoved, Before: file(0o100644, 0, 0)},
		{Path: "/deep/", Change: banger.FileChanged, Note: "it has too many files"},
	}
}

// run runs the command against a daemon that says what differs.
func runCommand(t *testing.T, line string) (asked banger.Comparison, stdout, stderr string, err error) {
	t.Helper()
	socket := apitest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		json.NewDecoder(r.Body).Decode(&asked)
		out := json.NewEncoder(w)
		out.Encode(banger.Event{Stage: "compare", Text: "reading"})
		for _, c := range changes() {
			out.Encode(banger.Event{File: &c})
		}
		out.Encode(banger.Event{Compared: &banger.Compared{From: "image x", To: "VM box", Changes: len(changes())}})
	})
	var out, errs bytes.Buffer
	a := &command.App{Stdout: &out, Stderr: &errs}
	a.Reach(host.Paths{State: filepath.Dir(socket), Run: filepath.Dir(socket)})
	c := New(a)
	c.SetArgs(strings.Fields(line))
	c.SilenceErrors, c.SilenceUsage = true, true
	err = c.ExecuteContext(context.Background())
	return asked, out.String(), errs.String(), err
}

// TestWhatDiffers shows the same changes in each of the ways.
func TestWhatDiffers(t *testing.T) {
	lines := `A /added
M /bin/x  content  mode 0644 -> 4755
M /dir  type directory -> symlink  xattrs
M /dev  device 1:3 -> 1:5
M /etc/lines
M /link  target a b -> x\x0a  owner 0:0 -> 1000:5
A /new/zeros
D /o\xffd\x0a\x1b
? /deep/  it has too many files
`
	patches := strings.NewReplacer("M /etc/lines\n", "M /etc/lines\n"+patch,
		"4755\n", "4755\nBinary files a/bin/x and b/bin/x differ\n",
		"A /new/zeros\n", "A /new/zeros\nBinary files /dev/null and b/new/zeros differ\n").Replace(lines)
	for line, c := range map[string]struct {
		want  string
		asked banger.Comparison
	}{
		"box":                                   {lines, banger.Comparison{To: "box"}},
		"a b -p":                                {patches, banger.Comparison{From: "a", To: "b", Patch: true}},
		"b --name-only":                         {names, banger.Comparison{To: "b"}},
		"b --stat":                              {stats, banger.Comparison{To: "b", Patch: true}},
		"b --format {{.change}}={{len(.path)}}": {"", banger.Comparison{}},
	} {
		asked, stdout, stderr, err := runCommand(t, line)
		if c.want == "" {
			if err == nil {
				t.Errorf("%s: it is taken", line)
			}
			continue
		}
		if err != nil || stdout != c.want || asked != c.asked {
			t.Errorf("%s: %v, asks for %+v, and shows\n%s", line, err, asked, stdout)
		}
		if stderr != "compare: reading\nbanger: VM box differs from image x in 9 files\n" {
			t.Errorf("%s says %q", line, stderr)
		}
	}
}

const names = `/added
/bin/x
/dir
/dev
/etc/lines
/link
/new/zeros
/o\xffd\x0a\x1b
/deep/
`

const stats = ` /added          | 0
 /bin/x          | Bin 10 -> 12 bytes
 /dir            | 0
 /dev            | 0
 /etc/lines      | 3 ++-
 /link           | 0
 /new/zeros      | Bin 0 -> 7 bytes
 /o\xffd\x0a\x1b | 0
 /deep/          | not compared
 9 files changed, 2 insertions(+), 1 deletions(-)
`

// TestJSONIsExact: each line is an object with all that the daemon says.
func TestJSONIsExact(t *testing.T) {
	_, stdout, _, err := runCommand(t, "box -p --format json")
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(strings.NewReader(stdout))
	for i, want := range changes() {
		var got banger.FileChange
		if err := d.Decode(&got); err != nil {
			t.Fatal(err)
		}
		if got.Path != want.Path || string(got.RawPath) != string(want.RawPath) || got.Patch != want.Patch {
			t.Errorf("change %d is %+v", i, got)
		}
	}
	if n := strings.Count(stdout, "\n"); n != len(changes()) {
		t.Errorf("there are %d lines", n)
	}
}

// TestAPatchOnATerminalIsPrintable and keeps its tabs and ends of lines. Nothing of it is left out.
func TestAPatchOnATerminalIsPrintable(t *testing.T) {
	if got := forTerminal("+a\tb\x1b[31m\r\n-\u202ex\n"); got != "+a\tb\\x1b[31m\\x0d\n-\\u202ex\n" {
		t.Errorf("it is %q", got)
	}
}

// TestWaysThatDoNotGoTogether are refused before anything is asked.
func TestWaysThatDoNotGoTogether(t *testing.T) {
	for _, line := range []string{"x --stat -p", "x --name-only --stat", "x --stat --format json", "x -p --name-only", "",
		"a b c", "x --format xml"} {
		asked, _, _, err := runCommand(t, line)
		if err == nil || asked.To != "" {
			t.Errorf("%q: %v, %+v", line, err, asked)
		}
	}
}
