package firecracker

import (
	"bytes"
	"os"
	"strings"
	"syscall"
	"testing"

	"banger/internal/vmm"
	"banger/internal/vmm/child"
)

// TestReason: how Firecracker ended, by its wait status, the console's end and its log.
func TestReason(t *testing.T) {
	const panicked = "[    1.2] Kernel panic - not syncing: VFS: Unable to mount root fs\n"
	for name, c := range map[string]struct {
		script               string
		console, log, stderr string
		halted               bool
		want                 vmm.Exit
	}{
		"a restart ends it": {
			script:  "exit 0",
			console: "reboot: Restarting system\n",
			want:    vmm.Exit{Reboot: true, Reason: "the guest powered off"},
		},
		"a power-off ends it": {
			script:  "exit 0",
			console: "reboot: Power down\n",
			want:    vmm.Exit{Reason: "the guest powered off"},
		},
		"a halt that we end": {script: "kill -9 $$", halted: true, want: vmm.Exit{Reason: "the guest powered off"}},
		"a panic": {
			script:  "exit 0",
			console: panicked,
			want:    vmm.Exit{Panic: true, Reason: "the guest kernel panicked"},
		},
		"a kill": {
			script: "kill -9 $$",
			want:   vmm.Exit{Signal: 9, Reason: "Firecracker was killed by signal 9 (killed)"},
		},
		"a kill of who had panicked": {
			script:  "kill -9 $$",
			console: panicked,
			want:    vmm.Exit{Signal: 9, Reason: "Firecracker was killed by signal 9 (killed)"},
		},
		"its filter": {
			script: "exit 148",
			log:    "[ERROR] Shutting down VM after intercepting a bad syscall (42).\n",
			want: vmm.Exit{
				Code:   148,
				Reason: "Firecracker made a system call that its filter forbids (code 148): [ERROR] Shutting down VM after intercepting a bad syscall (42)",
			},
		},
		"its arguments": {
			script: "exit 153",
			stderr: "Arguments parsing error\n",
			want:   vmm.Exit{Code: 153, Reason: "Firecracker did not like its arguments (code 153): Arguments parsing error"},
		},
		"the log is before stderr": {
			script: "exit 1",
			log:    "why\n",
			stderr: "what\n",
			want:   vmm.Exit{Code: 1, Reason: "Firecracker failed (code 1): why"},
		},
		"without a word": {script: "exit 3", want: vmm.Exit{Code: 3, Reason: "Firecracker failed (code 3)"}},
		"a log that is no text": {
			script: "exit 1",
			log:    "a\x1b[2Jb\xff\n",
			want:   vmm.Exit{Code: 1, Reason: `Firecracker failed (code 1): a\x1b[2Jb\xff`},
		},
		"a line longer than is told": {
			script: "exit 1",
			log:    strings.Repeat("x", 2*maxFault) + "\n",
			want:   vmm.Exit{Code: 1, Reason: "Firecracker failed (code 1): " + strings.Repeat("x", maxFault-1) + "…"},
		},
		"more log than a pipe can do": {
			script: "exit 1",
			log:    strings.Repeat("noise\n", 100_000) + "the end\n",
			want:   vmm.Exit{Code: 1, Reason: "Firecracker failed (code 1): the end"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			end, err := openLog(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer end.close()
			p := &process{log: end, Process: &child.Process{}}
			p.halted.Store(c.halted)
			p.Stdout.Write([]byte(c.console))
			p.Stderr.Write([]byte(c.stderr))
			log, err := os.OpenFile(dir+"/"+logPipe, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			log.WriteString(c.log)
			log.Close()
			if got := p.reason(p.Process, ended(t, c.script)); got != c.want {
				t.Errorf("it is told as %+v, not %+v", got, c.want)
			}
		})
	}
}

// TestTheKernelsLastWords are found wherever the console is cut, and only they.
func TestTheKernelsLastWords(t *testing.T) {
	for text, want := range map[string]bool{
		"[ 9.1] reboot: Power down\n":        true,
		"[ 9.1] reboot: System halted\n":     true,
		"[ 9.1] reboot: Restarting system\n": false,
		"Power down":                         false,
	} {
		for cut := range len(text) {
			said := 0
			w := &lastWords{to: &bytes.Buffer{}, ready: make(chan struct{}), said: func() { said++ }}
			close(w.ready)
			w.Write([]byte(text[:cut]))
			w.Write([]byte(text[cut:]))
			if (said > 0) != want {
				t.Errorf("of %q, cut at %d, the words are found %d times", text, cut, said)
			}
			if got := w.to.(*bytes.Buffer).String(); got != text {
				t.Errorf("the console has %q", got)
			}
		}
	}
}

// ended runs a script and returns how its shell ended.
func ended(t *testing.T, script string) *os.ProcessState {
	t.Helper()
	p, err := os.StartProcess("/bin/sh", []string{"sh", "-c", script},
		&os.ProcAttr{Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}})
	if err != nil {
		t.Fatal(err)
	}
	st, err := p.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return st
}
