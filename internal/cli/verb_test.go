package cli

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"banger"
	"banger/internal/frame"
	"banger/internal/testing/hosttest"
)

// TestVerbs is the life of a VM by the verbs of the CLI.
func TestVerbs(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	h.box("box")
	h.must("create", "--name", "other", h.Image, "--", "sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.05; done")
	const booting = "boot: booting other (emulated: slow, and no isolation boundary)\nboot: other is running\n"
	h.check(
		line{args: "start other", stdout: "other\n", stderr: booting},
		line{args: "start -q other", stdout: "other\n"}, // it runs already, which is no error in docker either
		line{args: "rename other box", code: 1, stderr: "banger: a VM called \"box\" exists already …"},
		line{args: "rename box crate"},
		line{args: "stop crate no", stdout: "crate\n", stderr: noVM, code: 1},
		line{args: "restart -q -t 1 crate", stdout: "crate\n"},
		line{args: "restart -q no", code: 1, stderr: noVM},
		line{args: "kill -s TERM crate", stdout: "crate\n"},
		line{args: "kill -s NO crate", code: 1,
			stderr: "banger: \"NO\" is not a signal (write a name like TERM or a number from 1 to 64)\n"},
		line{args: "kill no", code: 1, stderr: noVM},
		line{args: "kill other", stdout: "other\n"},
		line{args: "wait other crate", stdout: "137\n143\n"},
		line{args: "wait no", code: 1, stderr: noVM},
		line{args: "rm no", code: 1, stderr: noVM},
		line{args: "rm -f no", stdout: "no\n"},
		line{args: "rm crate", stdout: "crate\n"},
		line{args: "prune", code: 1,
			stderr: "banger: this needs a yes, and stdin is not a terminal (use --force)\n"},
		line{args: "prune --force", stdout: "other\n"},
		line{args: "ps -aq"},
	)
}

func TestRemoveOfARunningVM(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	h.box("box")
	h.check(
		line{args: "rm box", code: 1,
			stderr: "banger: cannot remove VM box: it is running (stop it first, or use rm -f)\n"},
		line{args: "rm -f box", stdout: "box\n"},
		line{args: "inspect box", stdout: "[]\n", code: 1,
			stderr: "banger: there is no VM, image, network or kernel \"box\" …"},
	)
}

// TestTheCodeThatWaitPrints includes VMs that ended without an exit code.
func TestTheCodeThatWaitPrints(t *testing.T) {
	t.Parallel()
	seven := 7
	for name, c := range map[string]struct {
		vm   banger.VM
		want int
	}{
		"a code":                {banger.VM{State: banger.StateStopped, ExitCode: &seven}, 7},
		"a failure with a code": {banger.VM{State: banger.StateFailed, ExitCode: &seven}, 7},
		"stopped":               {banger.VM{State: banger.StateStopped}, 0},
		"failed":                {banger.VM{State: banger.StateFailed}, exitBanger},
	} {
		if got := endCode(c.vm); got != c.want {
			t.Errorf("%s: %d", name, got)
		}
	}
}

func TestPs(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	box := h.box("box", "-l", "a=b")
	rest := h.must("create", "--name", "rest", h.Image, "--", "echo", strings.Repeat("long ", 20))
	h.check(
		line{args: "ps -q", stdout: box + "\n"},
		line{args: "ls -aq", stdout: rest + "\n" + box + "\n"},
		line{args: "vm ps -q -f state=created", stdout: rest + "\n"},
		line{args: "ps -aq -f name=bo -f label=a", stdout: box + "\n"},
		line{args: "ps -f nonsense", code: 1, stderr: "banger: \"nonsense\" is not a filter …"},
		line{args: "ps --format yaml", code: 2,
			stderr: "banger: --format is \"yaml\", but must be table, json or a template such as '{{.name}}'\n"},
		line{args: "ps box", code: 2,
			stderr: "banger: these arguments do not fit; write: banger ps [flags] (see: banger ps --help)\n"},
	)
	rows := strings.Split(h.must("ps", "-a"), "\n")
	for i, want := range []string{
		"ID NAME IMAGE COMMAND STATE PORTS ISOLATION CREATED",
		rest + " rest " + short(h.Image) + " echo long long long lon… created - emulated (none)",
		box + " box " + short(h.Image) + " sleep 1000 running, ",
	} {
		if got := strings.Join(strings.Fields(rows[i]), " "); !strings.HasPrefix(got, want) {
			t.Errorf("row %d is %q, not %q", i, got, want)
		}
	}
	var vms []banger.VM
	hosttest.Check(t, json.Unmarshal([]byte(h.must("ps", "--format", "json")), &vms))
	if len(vms) != 1 || vms[0].ID != box {
		t.Errorf("the JSON is %+v", vms)
	}
}

// short returns an image reference as ps shows it.
func short(image string) string {
	if len(image) > 40 {
		return image[:39] + "…"
	}
	return image
}

// TestLogs also checks that stderr is apart, and that the console has none of it.
func TestLogs(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	h.must("run", "-q", "-d", "--name", "box", h.Image, "--", "sh", "-c",
		"echo one; echo two; sleep 0.1; echo err >&2; sleep 0.1; echo three; exit 0")
	h.must("wait", "box")
	h.check(
		line{args: "logs box", stdout: "one\ntwo\nthree\n", stderr: "err\n"},
		line{args: "logs -n 1 box", stdout: "three\n"},
		line{args: "logs -n 0 box"},
		line{args: "logs -f -n 3 box", stdout: "two\nthree\n", stderr: "err\n"},
		line{args: "logs --since 1h -n 2 box", stdout: "three\n", stderr: "err\n"},
		line{args: "logs --until 1h box"},
		line{args: "logs -n 1 box no", stdout: "box | three\n", stderr: noVM, code: 1},
		line{args: "logs --console box"},
		line{args: "logs --console -f -n 1 box"},
		line{args: "logs -n -1 box", code: 2,
			stderr: "banger: --tail is \"-1\", but must be a number of lines or all\n"},
		line{args: "logs no", code: 1, stderr: noVM},
		line{args: "logs --console no", code: 1, stderr: noVM},
	)
	// Binary bytes and an end without a line end are kept. An attached client does not change what is recorded.
	raw := h.must("run", "-q", "--name", "raw", h.Image, "--", "sh", "-c", `printf '\000\377\r\n\033[1mend'`)
	h.check(line{args: "logs raw", stdout: raw})
	if raw != "\x00\xff\r\n\x1b[1mend" {
		t.Errorf("the client sees %q", raw)
	}
	// Another boot comes behind.
	h.must("start", "box")
	h.must("wait", "box")
	h.check(line{args: "logs box", stdout: "one\ntwo\nthree\none\ntwo\nthree\n", stderr: "err\nerr\n"})
}

// TestLogsOfAnEarlierDaemon shows what such a daemon has, the console.
func TestLogsOfAnEarlierDaemon(t *testing.T) {
	a, stdout, stderr := falseDaemon(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		io.WriteString(w, "console\r\n")
	})
	if code := a.run(t.Context(), []string{"logs", "box"}); code != 0 || stdout.String() != "console\r\n" {
		t.Errorf("it shows %q, %q, %d", stdout, stderr, code)
	}
}

// TestLogsThatAreCutOff say so, in words of ours.
func TestLogsThatAreCutOff(t *testing.T) {
	a, stdout, stderr := falseDaemon(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.banger.frames")
		frame.Write(w, frame.Stdout, []byte("before\n"))
		w.Write([]byte{8, 0, 0})
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	code := a.run(t.Context(), []string{"logs", "box"})
	if code != 1 || stdout.String() != "before\n" ||
		!strings.HasPrefix(stderr.String(), "banger: the output of VM box was cut off: the daemon has ended (") {
		t.Errorf("it shows %q, %q, %d", stdout, stderr, code)
	}
}

func TestStats(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	id := h.box("box")
	h.must("create", "--name", "rest", h.Image)
	rows := strings.Split(h.must("stats", "--no-stream"), "\n")
	if len(rows) != 2 || !strings.HasPrefix(rows[1], id+"   box ") {
		t.Errorf("the table is %q", rows)
	}
	var list []struct {
		ID    string
		Limit int64    `json:"memory_limit"`
		CPU   *float64 `json:"cpu_percent"`
	}
	hosttest.Check(t, json.Unmarshal([]byte(h.must("stats", "--format", "json", "box")), &list))
	if len(list) != 1 || list[0].ID != id || list[0].CPU == nil {
		t.Errorf("the JSON is %+v", list)
	}
	h.check(
		line{args: "stats rest", code: 1, stderr: "banger: cannot see the stats of VM rest: it is created …"},
		line{args: "stats --format yaml", code: 2,
			stderr: "banger: --format is \"yaml\", but must be table, json or a template such as '{{.name}}'\n"},
	)
}
