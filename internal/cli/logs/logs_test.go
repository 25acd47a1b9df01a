package logs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"banger"
	"banger/internal/api/wire"
	"banger/internal/cli/command"
	"banger/internal/frame"
	"banger/internal/host"
	"banger/internal/testing/apitest"
)

// began is when the output of all VMs began.
var began = time.Date(2026, 11, 29, 18, 30, 0, 0, time.UTC)

// said is one frame of an output.
type said struct {
	position int
	second   int // after began
	stream   frame.Type
	text     string
}

const out, errs = frame.Stdout, frame.Stderr

// world is a daemon whose VMs have said something, and the state of one user.
type world struct {
	t     *testing.T
	vms   map[string][]said // by name; nil: only a console
	old   bool              // the daemon sends no stamps
	cut   bool              // answers break off
	hangs chan struct{}     // a follower gets no end; this takes a value when all was sent
	mu    sync.Mutex
	asked []string // the queries, without what every one has

	stdout io.Writer // nil: run returns what it gets
}

// writerFunc is a writer.
type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// idOf returns the id of a VM.
func idOf(name string) string { return (fmt.Sprintf("%x", name) + "000000000000")[:12] }

func (w *world) handle(rw http.ResponseWriter, r *http.Request) {
	name, logs := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, "/v1/vms/"), "/logs")
	list, ok := w.vms[name]
	switch {
	case !ok:
		rw.WriteHeader(http.StatusNotFound)
		fmt.Fprintf(rw, `{"error":{"code":"not-found","message":"there is no VM %s"}}`, name)
	case !logs:
		json.NewEncoder(rw).Encode(banger.VM{ID: idOf(name), Name: name})
	case list == nil || r.URL.Query().Get("output") == "":
		io.WriteString(rw, name+"'s console\nno end")
	default:
		query := r.URL.Query()
		for _, name := range []string{"output", "stamps"} {
			query.Del(name)
		}
		w.mu.Lock()
		w.asked = append(w.asked, query.Encode())
		w.mu.Unlock()
		rw.Header().Set("Content-Type", "application/vnd.banger.frames")
		w.send(rw, r, list)
	}
}

// send answers with what comes behind the position of a request.
func (w *world) send(rw http.ResponseWriter, r *http.Request, list []said) {
	var from int
	fmt.Sscan(r.URL.Query().Get("position"), &from)
	for _, s := range list {
		if s.position < from {
			continue
		}
		if !w.old {
			rw.Write(frame.AppendStamp(nil, uint64(s.position), began.Add(time.Duration(s.second)*time.Second)))
		}
		frame.Write(rw, s.stream, []byte(s.text))
	}
	if w.cut {
		rw.Write([]byte{8, 0})
		http.NewResponseController(rw).Flush()
		panic(http.ErrAbortHandler)
	}
	if w.hangs != nil {
		http.NewResponseController(rw).Flush()
		w.hangs <- struct{}{}
		<-r.Context().Done()
	}
}

// run runs one command line.
func (w *world) run(ctx context.Context, words ...string) (stdout, stderr string, err error) {
	w.t.Helper()
	dir := filepath.Dir(apitest.ServeVersion(w.t, wire.Version{}, w.handle))
	var o, e bytes.Buffer
	a := &command.App{Stdout: &o, Stderr: &e}
	if w.stdout != nil {
		a.Stdout = w.stdout
	}
	a.Reach(host.Paths{State: dir, Run: dir})
	c := New(a)
	c.SetArgs(words)
	c.SilenceErrors, c.SilenceUsage = true, true
	err = c.ExecuteContext(ctx)
	return o.String(), e.String(), err
}

// must runs one command line that succeeds.
func (w *world) must(line string) (stdout, stderr string) {
	w.t.Helper()
	stdout, stderr, err := w.run(w.t.Context(), strings.Fields(line)...)
	if err != nil {
		w.t.Fatalf("%s: %v", line, err)
	}
	return stdout, stderr
}

// TestWhatIsShown shows the same outputs in each form.
func TestWhatIsShown(t *testing.T) {
	const at = "2026-11-29T18:30:0"
	vms := map[string][]said{
		"web":     {{0, 0, out, "one\ntw"}, {6, 1, errs, "no\n"}, {9, 2, out, "o\n\x00\xff\x1b[1m\nend"}},
		"web-2":   {{0, 0, out, "next\n"}},
		"machine": nil, // it has only a console
	}
	for line, want := range map[string]struct{ stdout, stderr string }{
		"web": {"one\ntwo\n\x00\xff\x1b[1m\nend", "no\n"},
		"-t web": {at + "0.000000000Z one\n" + at + "0.000000000Z two\n" + at + "2.000000000Z \x00\xff\x1b[1m\n" + at +
			"2.000000000Z end", at + "1.000000000Z no\n"},
		"web web-2 web": {"web   | one\nweb   | two\nweb   | \x00\xff\x1b[1m\nweb   | end\nweb-2 | next\n",
			"web   | no\n"},
		"-t web-2 web": {"web-2 | " + at + "0.000000000Z next\nweb   | " + at + "0.000000000Z one\nweb   | " + at +
			"0.000000000Z two\nweb   | " + at + "2.000000000Z \x00\xff\x1b[1m\nweb   | " + at + "2.000000000Z end\n",
			"web   | " + at + "1.000000000Z no\n"},
		"machine":             {"machine's console\nno end", ""},
		"machine web-2":       {"machine | machine's console\nmachine | no end\nweb-2   | next\n", ""},
		"--console web":       {"web's console\nno end", ""},
		"--console web web-2": {"web   | web's console\nweb   | no end\nweb-2 | web-2's console\nweb-2 | no end\n", ""},
	} {
		t.Run(line, func(t *testing.T) {
			w := &world{t: t, vms: vms}
			if stdout, stderr := w.must(line); stdout != want.stdout || stderr != want.stderr {
				t.Errorf("it shows %q and %q, not %q and %q", stdout, stderr, want.stdout, want.stderr)
			}
		})
	}
}

// TestLinesStayWhole: several VMs are followed at the same time, and no line comes within another.
func TestLinesStayWhole(t *testing.T) {
	w := &world{t: t, vms: map[string][]said{}}
	want := map[string]int{}
	line := []string{"-f"}
	for _, name := range []string{"a", "b", "c"} {
		for i := range 300 {
			w.vms[name] = append(w.vms[name], said{2 * i, 0, out, name}, said{2*i + 1, 0, out, "\n"})
		}
		want[name+" | "+name] = 300
		line = append(line, name)
	}
	stdout, stderr := w.must(strings.Join(line, " "))
	for line := range strings.Lines(stdout) {
		want[strings.TrimSuffix(line, "\n")]--
	}
	for line, left := range want {
		if left != 0 {
			t.Errorf("%q is missing %d times", line, left)
		}
	}
	if stderr != "" {
		t.Errorf("it says %q", stderr)
	}
}

// TestLongLines: a line is held in memory up to a bound. It comes in pieces when it is longer.
func TestLongLines(t *testing.T) {
	full := strings.Repeat("x", maxLine)
	for text, want := range map[string]struct{ alone, among string }{
		full + "\ny":    {"T " + full + "\nT y", "web | T " + full + "\nweb | T y\n"},
		full + "y\nz\n": {"T " + full + "y\nT z\n", "web | T " + full + "\nweb | T y\nweb | T z\n"},
		full + full + "y\n\nz": {"T " + full + full + "y\nT \nT z", strings.Repeat("web | T "+full+"\n", 2) +
			"web | T y\nweb | T \nweb | T z\n"},
	} {
		for _, size := range []int{1, 1000, len(text)} {
			for _, alone := range []bool{true, false} {
				var b bytes.Buffer
				l := &lines{mu: new(sync.Mutex), w: &b, times: true, alone: alone}
				if !alone {
					l.name = "web | "
				}
				for rest := []byte(text); len(rest) > 0; {
					n := min(size, len(rest))
					l.write(rest[:n], began)
					rest = rest[n:]
				}
				l.flush()
				got := strings.ReplaceAll(b.String(), began.Format(stampForm), "T ")
				if alone && got != want.alone || !alone && got != want.among {
					t.Errorf("%d bytes by %d, alone %t, become %d bytes", len(text), size, alone, len(got))
				}
			}
		}
	}
}

// TestAFailureDoesNotEndTheOthers, and has the name of its VM.
func TestAFailureDoesNotEndTheOthers(t *testing.T) {
	w := &world{t: t, vms: map[string][]said{"web": {{0, 0, out, "one\n"}}, "machine": nil}}
	stdout, stderr, err := w.run(t.Context(), "-t", "none", "machine", "web")
	if e, ok := errors.AsType[*command.ExitError](err); !ok || e.Code != 1 || e.Err != nil {
		t.Errorf("it ends with %v", err)
	}
	if want := "web     | 2026-11-29T18:30:00.000000000Z one\n"; stdout != want {
		t.Errorf("it shows %q, not %q", stdout, want)
	}
	const want = "banger: there is no VM none\nbanger: machine: the output of VM machine is on its console, which has no " +
		"times and no positions (leave out -t, --since, --until and --cursor)\n"
	if stderr != want {
		t.Errorf("it says %q, not %q", stderr, want)
	}
	w.cut = true
	stdout, stderr, err = w.run(t.Context(), "web", "web-2", "-f")
	const cut = "banger: web: the output of VM web was cut off: the daemon has ended ("
	if err == nil || stdout != "web | one\n" || !strings.Contains(stderr, cut) {
		t.Errorf("it shows %q and %q, %v", stdout, stderr, err)
	}
}

// TestRefusedLines are refused before anything is asked.
func TestRefusedLines(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "broken")
	if err := os.WriteFile(broken, []byte("0123456789ab main 5\nelse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const console = "the console has no times and no positions"
	for line, want := range map[string]string{
		"":                               "these arguments do not fit",
		"-n x web":                       `--tail is "x", but must be a number of lines or all`,
		"--since never web":              `--since is "never", but must be a duration such as 10m, a time such as`,
		"--until 12:00 web":              `--until is "12:00", but must be`,
		"--since 1m --until 2m web":      "since is ",
		"--console -t web":               console,
		"--console --since 1m web":       console,
		"--console --until 1m web":       console,
		"--console --cursor F web":       console,
		"--cursor " + broken + " web":    broken + ` is no file of cursors: it has the line "else\n"`,
		"--cursor /no/such/file/at web":  "cannot write the cursor",
		"--cursor /proc/self/mem/at web": "cannot read the cursor: open /proc/self/mem/at: not a directory",
	} {
		w := &world{t: t, vms: map[string][]said{"web": {}}}
		_, stderr, err := w.run(t.Context(), strings.Fields(line)...)
		if err == nil || !strings.Contains(err.Error()+stderr, want) || len(w.asked) > 0 && !strings.Contains(line, "/no/") {
			t.Errorf("%q is answered %v, %q, and asks %q", line, err, stderr, w.asked)
		}
	}
}

// TestWhatIsAsked: the daemon selects, and gets times that do not depend on its clock.
func TestWhatIsAsked(t *testing.T) {
	for line, want := range map[string]string{
		"web":         "follow=false",
		"-n 3 -f web": "follow=true&tail=3",
		"--since 2026-11-29T18:30:00+01:00 --until 1796000000.5 web": "follow=false&since=2026-11-29T17%3A30%3A00Z&until=" +
			"2026-11-30T00%3A53%3A20.5Z",
	} {
		w := &world{t: t, vms: map[string][]said{"web": {}}}
		if w.must(line); w.asked[0] != want {
			t.Errorf("%q asks %q, not %q", line, w.asked, want)
		}
	}
}

// TestACursorGoesOn: each call shows what came since the call before, of each VM, and says what is gone.
func TestACursorGoesOn(t *testing.T) {
	w := &world{t: t, vms: map[string][]said{"web": {{0, 0, out, "one\n"}}, "db": {{0, 1, errs, "two\n"}}}}
	file := filepath.Join(t.TempDir(), "at")
	line := "--cursor " + file + " "
	check := func(args, wantOut, wantErr, wantFile string) {
		t.Helper()
		if stdout, stderr := w.must(line + args); stdout != wantOut || stderr != wantErr {
			t.Errorf("%s shows %q and %q, not %q and %q", args, stdout, stderr, wantOut, wantErr)
		}
		got, err := os.ReadFile(file)
		if st, _ := os.Stat(file); err != nil || st.Mode() != 0o600 || string(got) != wantFile {
			t.Errorf("after %s the file is %q, %v", args, got, err)
		}
	}
	web, db := idOf("web")+" main ", idOf("db")+" main "
	check("web", "one\n", "", web+"4\n")
	check("web", "", "", web+"4\n")
	w.vms["web"] = append(w.vms["web"], said{4, 2, out, "three\n"}, said{10, 2, errs, "no\n"})
	check("web db", "web | three\n", "web | no\ndb  | two\n", db+"4\n"+web+"13\n")
	// The daemon no longer has all: rotation has removed it.
	w.vms["web"] = []said{{20, 3, out, "late\n"}, {30, 3, out, "later\n"}}
	check("-t web", "2026-11-29T18:30:03.000000000Z late\n2026-11-29T18:30:03.000000000Z later\n",
		"banger: 7 bytes of web's output are gone\nbanger: 5 bytes of web's output are gone\n", db+"4\n"+web+"36\n")
	// Fewer lines, or a window, are what the user wanted.
	w.vms["web"] = []said{{40, 4, out, "end\n"}}
	check("-n 1 web", "end\n", "", db+"4\n"+web+"44\n")
	w.vms["web"] = []said{{50, 4, out, "end\n"}, {60, 4, out, "end\n"}}
	check("--since 10m web", "end\nend\n", "", db+"4\n"+web+"64\n")
	if w.asked[len(w.asked)-2] != "follow=false&position=36&tail=1" {
		t.Errorf("it asks %q", w.asked)
	}
	list, err := os.ReadDir(filepath.Dir(file))
	if err != nil || len(list) != 1 {
		t.Errorf("beside the file there is %v, %v", list, err)
	}
}

// TestCtrlCKeepsTheCursor of what was shown.
func TestCtrlCKeepsTheCursor(t *testing.T) {
	w := &world{t: t, vms: map[string][]said{"web": {{0, 0, out, "one\ntw"}}}, hangs: make(chan struct{})}
	file := filepath.Join(t.TempDir(), "at")
	ctx, interrupt := context.WithCancel(t.Context())
	var shown writerFunc = func(p []byte) (int, error) {
		go func() { // when the daemon has sent all
			<-w.hangs
			interrupt()
		}()
		return len(p), nil
	}
	w.stdout = shown
	if _, stderr, err := w.run(ctx, "-f", "--cursor", file, "web"); err != nil || stderr != "" {
		t.Errorf("it ends with %v, %q", err, stderr)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != idOf("web")+" main 6\n" {
		t.Errorf("the file is %q, %v", got, err)
	}
}

// TestAnOutputThatWasCountedAnew is shown from its beginning: its cursor is of records that a crash of the host took.
func TestAnOutputThatWasCountedAnew(t *testing.T) {
	var to bytes.Buffer
	src := source{vm: "web", key: key{idOf("web"), mainOutput}}
	src.open = func(_ context.Context, v banger.LogView) (io.ReadCloser, bool, error) {
		frames := frame.AppendStamp(nil, 0, began)
		b := bytes.NewBuffer(frames)
		frame.Write(b, frame.Stdout, []byte("again\n"))
		return io.NopCloser(b), true, nil
	}
	s := &show{App: &command.App{Stdout: &to, Stderr: &to}, view: banger.LogView{Tail: -1}, cursors: newCursors("")}
	s.cursors.set(src.key, 99)
	err := s.output(t.Context(), src, newRaw(&to), newRaw(&to))
	if err != nil || to.String() != "banger: web's output was counted anew, and all of it follows\nagain\n" ||
		s.cursors.seen[src.key] != 6 {
		t.Errorf("it shows %q, %v, and is at %v", &to, err, s.cursors.seen)
	}
}

// TestAnEarlierBangerHasNoTimes: its frames are shown, and one line says that they are all.
func TestAnEarlierBangerHasNoTimes(t *testing.T) {
	w := &world{t: t, old: true, vms: map[string][]said{"web": {{0, 0, out, "one\n"}, {4, 0, errs, "no\n"}}}}
	if stdout, stderr := w.must("web"); stdout != "one\n" || stderr != "no\n" {
		t.Errorf("it shows %q and %q", stdout, stderr)
	}
	file := filepath.Join(t.TempDir(), "at")
	for _, line := range []string{"-t web", "--since 1h web", "--cursor " + file + " web"} {
		const note = "banger: all of web's output comes, without times and positions, because an earlier banger runs the VM " +
			"(start it again: banger restart web)\n"
		if stdout, stderr := w.must(line); stdout != "one\n" || stderr != note+"no\n" {
			t.Errorf("%s shows %q and %q", line, stdout, stderr)
		}
	}
	if got, err := os.ReadFile(file); err != nil || len(got) > 0 {
		t.Errorf("the cursor is %q, %v", got, err)
	}
}

// TestTimes has docker's forms, with a clock that goes an hour before UTC.
func TestTimes(t *testing.T) {
	now := time.Date(2026, 11, 29, 18, 30, 0, 0, time.FixedZone("", 3600))
	for text, want := range map[string]string{
		"":                          "0001-01-01T00:00:00Z",
		"10m":                       "2026-11-29T17:20:00Z",
		"1h30m":                     "2026-11-29T16:00:00Z",
		"1.5s":                      "2026-11-29T17:29:58.5Z",
		"-1m":                       "2026-11-29T17:31:00Z",
		"2026-11-29":                "2026-11-28T23:00:00Z",
		"2026-11-29T18":             "2026-11-29T17:00:00Z",
		"2026-11-29T18:05":          "2026-11-29T17:05:00Z",
		"2026-11-29T18:05:06":       "2026-11-29T17:05:06Z",
		"2026-11-29T18:05:06.25":    "2026-11-29T17:05:06.25Z",
		"2026-11-29Z":               "2026-11-29T00:00:00Z",
		"2026-11-29T18:05Z":         "2026-11-29T18:05:00Z",
		"2026-11-29T18:05:06.25Z":   "2026-11-29T18:05:06.25Z",
		"2026-11-29T18:05:06-02:00": "2026-11-29T20:05:06Z",
		"0":                         "1970-01-01T00:00:00Z",
		"1700000000":                "2023-11-14T22:13:20Z",
		"1700000000.000000007":      "2023-11-14T22:13:20.000000007Z",
		"1700000000.5":              "2023-11-14T22:13:20.5Z",
		"1700000000.5000000000":     "",
		"1.-5":                      "",
		"0x10":                      "",
		"now":                       "",
		"18:30":                     "",
		"2026-13-01":                "",
	} {
		got, err := parseTime("--since", text, now)
		if want == "" {
			if e, ok := errors.AsType[*command.ExitError](err); !ok || e.Code != command.ExitUsage {
				t.Errorf("%q is %s, %v", text, got, err)
			}
		} else if err != nil || got.UTC().Format(time.RFC3339Nano) != want {
			t.Errorf("%q is %s, %v, not %s", text, got.UTC().Format(time.RFC3339Nano), err, want)
		}
	}
}
