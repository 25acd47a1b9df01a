package qemu

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/vmm"
)

const (
	greeting = `{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}}, "capabilities": []}}` + "\n"
	done     = `{"return": {}}` + "\n"
	event    = `{"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 2}}` + "\n"
)

// fakeQEMU answers each connection with a greeting and each command with the
// next answer, then is silent. It returns the process to ask and the commands.
func fakeQEMU(t *testing.T, greeting string, answers ...string) (*process, <-chan string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "qmp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	ln, err := net.Listen("unix", filepath.Join(dir, "qmp.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	asked := make(chan string, 10)
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, greeting)
			for r := bufio.NewReader(conn); ; {
				line, err := r.ReadString('\n')
				if err != nil {
					break
				}
				asked <- strings.TrimSpace(line)
				if len(answers) > 0 {
					io.WriteString(conn, answers[0])
					answers = answers[1:]
				}
			}
			conn.Close()
		}
	}()
	return &process{config: vmm.Config{Dir: dir}}, asked
}

func TestCommandsReachTheMonitor(t *testing.T) {
	p, asked := fakeQEMU(t, greeting, done, event+event+done, done, event+done)
	if err := p.Pause(t.Context()); err != nil {
		t.Errorf("Pause: %v", err)
	}
	if err := p.Resume(t.Context()); err != nil {
		t.Errorf("Resume: %v", err)
	}
	for _, want := range []string{"qmp_capabilities", "stop", "qmp_capabilities", "cont"} {
		if got := <-asked; got != fmt.Sprintf(`{"execute":%q}`, want) {
			t.Errorf("QEMU was asked %s, not to %s", got, want)
		}
	}
}

// TestHostileMonitor: whatever answers, the caller gets an error in time.
func TestHostileMonitor(t *testing.T) {
	huge := strings.Repeat("x", 3*maxQMPLine)
	for name, c := range map[string]struct {
		greeting string
		answers  []string
		words    string
	}{
		"refuses":                   {greeting, []string{done, `{"error": {"class": "GenericError", "desc": "not now"}}` + "\n"}, "QEMU refused stop: not now"},
		"refuses to negotiate":      {greeting, []string{`{"error": {"desc": "no"}}` + "\n"}, "QEMU refused qmp_capabilities"},
		"a greeting without end":    {huge, nil, "line too long"},
		"an answer without end":     {greeting, []string{done, huge}, "line too long"},
		"a huge line":               {greeting, []string{done, huge + "\n" + done}, "line too long"},
		"garbage":                   {greeting, []string{done, "\x00\xff\n"}, "broken JSON"},
		"a number":                  {greeting, []string{done, "7\n"}, "broken JSON"},
		"an empty line":             {greeting, []string{done, "\n"}, "broken JSON"},
		"an error of no known form": {greeting, []string{done, `{"error": "no"}` + "\n"}, "broken JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			p, _ := fakeQEMU(t, c.greeting, c.answers...)
			if err := p.Pause(t.Context()); err == nil || !strings.Contains(err.Error(), c.words) || len(err.Error()) > 300 {
				t.Errorf("the error is %.300v, not one with %q", err, c.words)
			}
		})
	}
}

// TestASilentMonitorIsGivenUp: by the context, whether it has a deadline or is
// canceled.
func TestASilentMonitorIsGivenUp(t *testing.T) {
	for name, c := range map[string]struct {
		greeting string
		answers  []string
		commands int // that are asked before it falls silent
	}{
		"from the start":     {"", nil, 0},
		"after its greeting": {greeting, nil, 1},
		"after the command":  {greeting, []string{done}, 2},
		"but for events":     {greeting, []string{done, event + event}, 2},
	} {
		t.Run(name+", to a deadline", func(t *testing.T) {
			p, _ := fakeQEMU(t, c.greeting, c.answers...)
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			start := time.Now()
			if err := p.Pause(ctx); err == nil {
				t.Error("Pause claims success")
			}
			if took := time.Since(start); took > 5*time.Second {
				t.Errorf("it took %s", took)
			}
		})
		t.Run(name+", to a caller who goes", func(t *testing.T) {
			p, asked := fakeQEMU(t, c.greeting, c.answers...)
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				for range c.commands {
					<-asked
				}
				cancel()
			}()
			start := time.Now()
			if err := p.Pause(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("the error is %v after %s", err, time.Since(start))
			}
		})
	}
}

func TestAMonitorThatHangsUp(t *testing.T) {
	dir := t.TempDir()
	p := &process{config: vmm.Config{Dir: dir}}
	if err := p.Pause(t.Context()); err == nil {
		t.Error("without a monitor Pause claims success")
	}
	ln, err := net.Listen("unix", qmpPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		if conn, err := ln.Accept(); err == nil {
			io.WriteString(conn, greeting+`{"return"`)
			conn.Close()
		}
	}()
	if err := p.Pause(t.Context()); err == nil {
		t.Error("half an answer is taken for one")
	}
}

// TestARefusalIsPrintable lets a VMM refuse with a text of many characters that steer a terminal.
func TestARefusalIsPrintable(t *testing.T) {
	p, _ := fakeQEMU(t, greeting, done, `{"error": {"desc": "`+strings.Repeat(`no\u001b\u202e`, 40_000)+`"}}`+"\n")
	err := p.Pause(t.Context())
	if err == nil || !strings.HasPrefix(err.Error(), `QEMU refused stop: no\x1b\u202e`) || len(err.Error()) > 1100 {
		t.Errorf("the error is %.300q", err)
	}
}
