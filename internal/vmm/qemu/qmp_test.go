package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	greeting = `{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}}, "capabilities": []}}` + "\n"
	done     = `{"return": {}, "id": ID}` + "\n"
	event    = `{"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 2}}` + "\n"
)

// fakeQEMU sends a greeting, answers each command with the next answer, and is then silent. It
// returns the process, and the commands without their numbers.
func fakeQEMU(t *testing.T, greeting string, answers ...string) (*process, <-chan string) {
	t.Helper()
	conn, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	far, err := net.FileConn(theirs)
	if err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	asked, ended := make(chan string, 10), make(chan struct{})
	go func() {
		defer close(ended)
		io.WriteString(far, greeting)
		for r := bufio.NewReader(far); ; {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			var command struct {
				Execute string
				ID      int
			}
			json.Unmarshal([]byte(line), &command)
			asked <- command.Execute
			if len(answers) > 0 {
				io.WriteString(far, strings.ReplaceAll(answers[0], "ID", strconv.Itoa(command.ID)))
				answers = answers[1:]
			}
		}
	}()
	p := &process{monitor: newMonitor(conn)}
	t.Cleanup(func() {
		p.monitor.close()
		<-ended
		far.Close()
	})
	return p, asked
}

func TestCommandsReachTheMonitor(t *testing.T) {
	p, asked := fakeQEMU(t, greeting, done, event+event+done, done, event+done)
	if err := p.negotiate(t.Context()); err != nil {
		t.Errorf("negotiating: %v", err)
	}
	if err := p.Pause(t.Context()); err != nil {
		t.Errorf("Pause: %v", err)
	}
	if err := p.Resume(t.Context()); err != nil {
		t.Errorf("Resume: %v", err)
	}
	for _, want := range []string{"qmp_capabilities", "stop", "cont"} {
		if got := <-asked; got != want {
			t.Errorf("QEMU was asked %s, not to %s", got, want)
		}
	}
}

// TestALateAnswerIsNobodyElses: the answer to a command that was given up comes while the next
// command waits, and is ignored.
func TestALateAnswerIsNobodyElses(t *testing.T) {
	late := `{"return": {"late": true}, "id": 1}` + "\n"
	p, asked := fakeQEMU(t, greeting, "", late+`{"return": {"late": false}, "id": ID}`+"\n")
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	if err := p.Pause(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	got, err := p.monitor.query(t.Context(), "query-status", nil, nil)
	if err != nil || string(got) != `{"late": false}` {
		t.Errorf("the answer is %s, %v", got, err)
	}
}

// TestAMonitorThatWasStopped: what could not be sent meanwhile does not affect later commands.
func TestAMonitorThatWasStopped(t *testing.T) {
	conn, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{monitor: newMonitor(conn)}
	defer p.monitor.close()
	for full := false; !full; {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Millisecond)
		full = strings.HasPrefix(p.Pause(ctx).Error(), "sending ")
		cancel()
	}
	far, err := net.FileConn(theirs)
	if err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	defer far.Close()
	go func() { // ends with far
		for r := bufio.NewReader(far); ; {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			var command struct{ ID int }
			json.Unmarshal([]byte(line), &command)
			io.WriteString(far, strings.ReplaceAll(done, "ID", strconv.Itoa(command.ID)))
		}
	}()
	if err := p.Resume(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestHostileMonitor: whatever the monitor answers, the caller gets an error in time.
func TestHostileMonitor(t *testing.T) {
	huge := strings.Repeat("x", 3*maxQMPLine)
	for name, c := range map[string]struct {
		greeting string
		answers  []string
		words    string
	}{
		"refuses": {greeting,
			[]string{`{"error": {"class": "GenericError", "desc": "not now"}, "id": ID}` + "\n"}, "QEMU refused stop: not now"},
		"a greeting without end":    {huge, nil, "line too long"},
		"an answer without end":     {greeting, []string{huge}, "line too long"},
		"a huge line":               {greeting, []string{huge + "\n" + done}, "line too long"},
		"garbage":                   {greeting, []string{"\x00\xff\n"}, "broken JSON"},
		"a number":                  {greeting, []string{"7\n"}, "broken JSON"},
		"an empty line":             {greeting, []string{"\n"}, "broken JSON"},
		"an error of no known form": {greeting, []string{`{"error": "no"}` + "\n"}, "broken JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			p, _ := fakeQEMU(t, c.greeting, c.answers...)
			if err := p.Pause(t.Context()); err == nil || !strings.Contains(err.Error(), c.words) || len(err.Error()) > 300 {
				t.Errorf("the error is %.300v, not one with %q", err, c.words)
			}
		})
	}
}

// TestASilentMonitorIsGivenUp when the context ends, whether by a deadline or because it is
// cancelled.
func TestASilentMonitorIsGivenUp(t *testing.T) {
	for name, c := range map[string]struct {
		greeting string
		answers  []string
		commands int // that are asked before it falls silent
	}{
		"from the start":     {"", nil, 1},
		"after its greeting": {greeting, nil, 1},
		"but for events":     {greeting, []string{event + event}, 1},
		"for another number": {greeting, []string{`{"return": {}, "id": 99}` + "\n"}, 1},
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
	for name, said := range map[string]string{"at once": "", "in the midst of an answer": greeting + `{"return"`} {
		t.Run(name, func(t *testing.T) {
			conn, theirs, err := socketPair()
			if err != nil {
				t.Fatal(err)
			}
			p := &process{monitor: newMonitor(conn)}
			theirs.WriteString(said)
			theirs.Close()
			for range 2 {
				if err := p.Pause(t.Context()); err == nil {
					t.Error("Pause claims success")
				}
			}
			p.monitor.close()
		})
	}
}

// TestARefusalIsPrintable makes a VMM refuse with a text full of terminal control characters.
func TestARefusalIsPrintable(t *testing.T) {
	p, _ := fakeQEMU(t, greeting, `{"error": {"desc": "`+strings.Repeat(`no\u001b\u202e`, 4_000)+`"}, "id": ID}`+"\n")
	err := p.Pause(t.Context())
	if err == nil || !strings.HasPrefix(err.Error(), `QEMU refused stop: no\x1b\u202e`) || len(err.Error()) > 1100 {
		t.Errorf("the error is %.300q", err)
	}
}
