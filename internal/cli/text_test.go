package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"banger"
	"banger/internal/frame"
	"banger/internal/text"
)

// evil is text that must not reach a terminal unchanged: it sets a title, moves the cursor, sets colours with C1
// controls, changes the text direction, hides a word, and breaks lines.
const evil = "a\x1b]0;x\a\x1b[2J\u009b31m\u202e\u2066\u200b\ufeff\u2028\U000e0041\x7f\r\x00z"

// hostile returns a T with evil in each of its strings.
func hostile[T any]() T {
	var v T
	fill(reflect.ValueOf(&v).Elem(), 0)
	return v
}

func fill(v reflect.Value, depth int) {
	if _, ok := v.Interface().(time.Time); ok || depth > 12 {
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(evil)
	case reflect.Uint16:
		v.SetUint(1)
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), depth+1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), depth+1)
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key, depth+1)
		fill(value, depth+1)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				fill(v.Field(i), depth+1)
			}
		}
	}
}

// hostileDaemon answers each route with nouns in which every text is evil. For a VM "none" it answers with an error
// of 900 kB.
func hostileDaemon(w http.ResponseWriter, r *http.Request) {
	var answer any
	switch path := r.URL.Path; {
	case strings.Contains(path, "/none"):
		w.WriteHeader(http.StatusBadGateway)
		answer = map[string]any{"error": banger.Error{Code: evil, Message: strings.Repeat(evil, 20_000),
			Hint: strings.Repeat(evil, 20_000)}}
	case path == "/v1/vms":
		answer = []banger.VM{hostile[banger.VM]()}
	case strings.HasSuffix(path, "/ports"):
		answer = []banger.Listener{hostile[banger.Listener]()}
	case strings.HasSuffix(path, "/stats"):
		answer = hostile[banger.Stats]()
	case strings.HasSuffix(path, "/denials"), strings.HasSuffix(path, "/decisions"):
		answer = hostile[banger.Decision]()
	case strings.HasSuffix(path, "/history"):
		answer = []banger.ImageStep{hostile[banger.ImageStep]()}
	case strings.HasSuffix(path, "/usage"):
		answer = []banger.ImageUsage{hostile[banger.ImageUsage]()}
	case path == "/v1/images":
		answer = []banger.Image{hostile[banger.Image]()}
	case path == "/v1/image":
		answer = hostile[banger.Image]()
	case path == "/v1/images/pull":
		e := hostile[banger.Event]()
		e.VM, e.VMs, e.Image, e.Images, e.Kernel, e.Error, e.Layer = nil, nil, nil, nil, nil, nil, ""
		e.File, e.Compared = nil, nil
		json.NewEncoder(w).Encode(e)
		img := hostile[banger.Image]()
		answer = banger.Event{Image: &img}
	case path == "/v1/networks":
		answer = []banger.Network{hostile[banger.Network]()}
	case path == "/v1/snapshots":
		answer = []banger.Snapshot{hostile[banger.Snapshot]()}
	case strings.HasPrefix(path, "/v1/snapshots/"), strings.HasSuffix(path, "/snapshots"):
		answer = hostile[banger.Snapshot]()
	case path == "/v1/diffs":
		file, done := hostile[banger.FileChange](), hostile[banger.Compared]()
		file.RawPath = nil
		json.NewEncoder(w).Encode(banger.Event{File: &file})
		answer = banger.Event{Compared: &done}
	case path == "/v1/forks":
		answer = banger.Event{VMs: []banger.VM{hostile[banger.VM]()}}
	case path == "/v1/kernels":
		answer = []banger.Kernel{hostile[banger.Kernel]()}
	default:
		answer = hostile[banger.VM]()
	}
	json.NewEncoder(w).Encode(answer)
}

// TestOutputIsPrintable runs each command that shows texts of guests, images and registries. No output may have a
// character that is not printable. JSON must still have that character as an escape.
func TestOutputIsPrintable(t *testing.T) {
	t.Parallel()
	for _, command := range []string{
		"ps -a", "ps -aq", "ps -a --format json", "inspect box", "inspect none", "stop none", "exec none true",
		"cp none:/x y",
		"ports box", "ports box --format json", "port ls box", "stats --no-stream box",
		"stats --no-stream --format json box",
		"policy log box", "policy log box --format json", "policy log -a box",
		"image ls", "image ls -q", "image ls --format json", "image inspect x", "image history x",
		"image history x --format json",
		"image df", "image df --format json", "image pull x", "image pull x --format json", "run -d x",
		"network ls", "network ls -q", "network ls --format json", "kernel ls", "kernel ls --format json", "doctor",
		"doctor --format json", "snapshot ls", "snapshot ls --tree", "snapshot ls --format json", "snapshot inspect x",
		"snapshot create box", "fork box", "diff box", "diff box x --stat", "diff box --name-only", "diff box --format json",
	} {
		a, stdout, stderr := falseDaemon(t, hostileDaemon)
		a.run(t.Context(), strings.Fields(command))
		if stdout.Len()+stderr.Len() == 0 {
			t.Errorf("%s says nothing", command)
		}
		for _, out := range []*bytes.Buffer{stdout, stderr} {
			if at := bytes.IndexFunc(out.Bytes(),
				func(r rune) bool { return r != '\n' && r != '\t' && !text.Printable(r) }); at >= 0 {
				t.Errorf("%s prints %.80q", command, out.Bytes()[at:])
			}
		}
		if n := stderr.Len(); n > 12*text.MaxError {
			t.Errorf("%s prints an error of %d bytes", command, n)
		}
		if !strings.Contains(command, "json") && (!strings.Contains(command, "inspect") || command == "inspect none") ||
			strings.Contains(command, "doctor") {
			continue
		}
		var back any
		if err := json.NewDecoder(stdout).Decode(&back); err != nil {
			t.Errorf("%s is no JSON: %v; %s", command, err, stderr)
		} else if !holds(back, evil) {
			t.Errorf("%s has another meaning: %q; %s", command, back, stderr)
		}
	}
}

// holds reports whether a decoded JSON document has a string.
func holds(v any, want string) bool {
	switch v := v.(type) {
	case string:
		return v == want
	case []any:
		for _, e := range v {
			if holds(e, want) {
				return true
			}
		}
	case map[string]any:
		for _, e := range v {
			if holds(e, want) {
				return true
			}
		}
	}
	return false
}

// TestLogsOnATerminalArePrintable compares logs on a terminal and in a pipe, of the console and of the main command. On
// a terminal they are made printable. In a pipe they are the guest's unchanged output, as in docker and podman.
func TestLogsOnATerminalArePrintable(t *testing.T) {
	t.Parallel()
	raw := "boot\r\n\x1b[0;32mOK\x1b[0m " + evil + "\x9b\xff\nend\n"
	shown := "boot\r\nOK " + text.Line(evil+"\x9b\xff") + "\r\nend\r\n" // the terminal itself adds carriage returns
	console := func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, raw) }
	output := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.banger.frames")
		frame.Write(w, frame.Stdout, []byte(raw[:9])) // in the middle of a colour
		frame.Write(w, frame.Stderr, []byte(raw))
		frame.Write(w, frame.Stdout, []byte(raw[9:]))
	}
	stamped := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.banger.frames")
		w.Write(frame.AppendStamp(nil, 0, time.Unix(1_700_000_000, 0)))
		frame.Write(w, frame.Stdout, []byte(raw))
	}
	const at = "2023-11-14T22:13:20.000000000Z "
	for name, c := range map[string]struct {
		answer          http.HandlerFunc
		terminal        bool
		stdout, stderrs string
		flags           []string
	}{
		"console in a pipe":     {console, false, raw, "", nil},
		"console on a terminal": {console, true, shown, "", nil},
		"output in a pipe":      {output, false, raw, raw, nil},
		"output on a terminal":  {output, true, shown, shown, nil},
		"lines on a terminal": {stamped, true, at + strings.TrimSuffix(strings.ReplaceAll(shown, "\r\n", "\r\n"+at), at), "",
			[]string{"-t"}},
	} {
		a, stdout, stderr := falseDaemon(t, c.answer)
		gotOut, gotErr := func() string { return stdout.String() }, func() string { return stderr.String() }
		if c.terminal {
			a.Stdout, gotOut = ownTerminal(t)
			a.Stderr, gotErr = ownTerminal(t)
		}
		if code := a.run(t.Context(), append([]string{"logs", "box"}, c.flags...)); code != 0 {
			t.Errorf("%s: the exit code is %d", name, code)
		}
		if out := gotOut(); out != c.stdout {
			t.Errorf("%s: %q, not %q", name, out, c.stdout)
		}
		if errs := gotErr(); errs != c.stderrs {
			t.Errorf("%s: stderr is %q, not %q", name, errs, c.stderrs)
		}
	}
}

// ownTerminal returns a terminal, and a function that closes it and returns what was written to it.
func ownTerminal(t *testing.T) (slave *os.File, written func() string) {
	t.Helper()
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	got := make(chan string, 1)
	go func() { // ends when slave is closed
		data, _ := io.ReadAll(master)
		got <- string(data)
	}()
	return slave, func() string {
		slave.Close()
		return <-got
	}
}
