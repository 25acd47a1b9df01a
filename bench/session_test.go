//go:build bench

package bench

import (
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"banger"
	"banger/internal/frame"
)

// The bounds of the promises about sessions.
const (
	maxAttachMillis    = 60
	maxSessionsMiB     = 30 // of a hundred
	minSessionRatio    = 0.80
	crowdOfSessions    = 100
	attachesToMeasure  = 40
	linesOfASession    = 200 // about 8 KB
	untilSessionsWrote = time.Minute
)

// sessions measures sessions in one VM.
func (b *bench) sessions() {
	vm := b.newVM()
	b.cli("start", "-q", vm)
	b.attaches(vm)
	b.throughSessions(vm)
	b.cli("rm", "-f", vm)
	b.manySessions()
}

// session starts a session of a shell in a VM.
func (b *bench) session(vm, name, script string, tty bool) {
	b.Helper()
	_, err := b.client.StartSession(b.Context(), vm, banger.SessionSpec{Name: name,
		Command: banger.Exec{Args: []string{"sh", "-c", script}, TTY: tty, Rows: 24, Cols: 80}})
	b.must(err)
}

// attach attaches to a session, and calls take with each frame until it returns false.
func (b *bench) attach(vm, name string, v banger.SessionView, take func(frame.Type, []byte) bool) {
	b.Helper()
	conn, err := b.client.AttachSession(b.Context(), vm, name, v)
	b.must(err)
	defer conn.Close()
	b.each(conn, take)
}

// each calls take with each frame of a stream until it returns false.
func (b *bench) each(conn net.Conn, take func(frame.Type, []byte) bool) {
	b.Helper()
	frames := frame.NewReader(conn)
	for {
		t, p, err := frames.Next()
		b.must(err)
		if t == frame.Error {
			b.Fatalf("the stream ended: %s", p)
		}
		if !take(t, p) {
			return
		}
	}
}

// until returns a function for attach that ends at the first frame of a type.
func until(want frame.Type) func(frame.Type, []byte) bool {
	return func(t frame.Type, _ []byte) bool { return t != want }
}

// attaches measures the time from an attach to the first byte of a screen, and of output.
func (b *bench) attaches(vm string) {
	script := fmt.Sprintf("seq -f 'line %%040g' %d; echo done; exec sleep infinity", linesOfASession)
	b.session(vm, "screen", script, true)
	b.session(vm, "pipe", script, false)
	for _, name := range []string{"screen", "pipe"} {
		var all strings.Builder
		b.attach(vm, name, banger.SessionView{Position: new(uint64)}, func(t frame.Type, p []byte) bool {
			if t == frame.Stdout {
				all.Write(p)
			}
			return !strings.Contains(all.String(), "done")
		})
	}
	var screen, pipe, cli []float64
	for range attachesToMeasure {
		screen = append(screen, millis(timed(func() {
			b.attach(vm, "screen", banger.SessionView{Screen: true, Rows: 24, Cols: 80}, until(frame.Screen))
		})))
		pipe = append(pipe, millis(timed(func() {
			b.attach(vm, "pipe", banger.SessionView{Position: new(uint64)}, until(frame.Stdout))
		})))
	}
	for range attachesToMeasure / 2 {
		cli = append(cli, millis(timed(func() { b.cli("session", "logs", "-n", "1", vm, "pipe") })))
	}
	b.addSpread("attach to a screen, to its first byte", "ms", screen, maxAttachMillis)
	b.addSpread("attach to a pipe, to its first byte", "ms", pipe, maxAttachMillis)
	b.addSpread("banger session logs -n 1", "ms", cli, 0)
}

// addSpread is like add, and shows the smallest and the largest value.
func (b *bench) addSpread(figure, unit string, values []float64, bound float64) {
	b.Helper()
	b.add(figure+" "+spread(values), unit, values, bound)
}

// manySessions measures what the agent's memory grows by with many sessions, half of them with a terminal.
func (b *bench) manySessions() {
	vm := b.newVM()
	b.cli("start", "-q", vm)
	for range 20 { // what an agent has after some work
		b.must(b.execTrue(b.Context(), vm))
	}
	before := b.agentMemory(vm)
	for i := range crowdOfSessions {
		b.session(vm, fmt.Sprint("s", i), fmt.Sprintf("seq -f 'line %%040g' %d; exec sleep infinity", linesOfASession),
			i%2 == 0)
	}
	for late := time.Now().Add(untilSessionsWrote); ; {
		list, err := b.client.Sessions(b.Context(), vm)
		b.must(err)
		wrote := 0
		for _, s := range list {
			if s.End >= linesOfASession*46 {
				wrote++
			}
		}
		if wrote == crowdOfSessions {
			break
		}
		if time.Now().After(late) {
			b.Fatalf("only %d sessions have written all", wrote)
		}
	}
	after := b.agentMemory(vm)
	b.Logf("the agent has %.1f MiB, and with %d sessions %.1f MiB", before, crowdOfSessions, after)
	b.add("agent: growth by 100 sessions", "MiB PSS", []float64{after - before}, maxSessionsMiB)
}

// agentMemory returns what the agent of a VM takes of its memory, in MiB.
func (b *bench) agentMemory(vm string) float64 {
	b.Helper()
	for line := range strings.Lines(b.cli("exec", vm, "--", "cat", "/proc/1/smaps_rollup")) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			kib, err := strconv.Atoi(strings.Fields(rest)[0])
			b.must(err)
			return float64(kib) / 1024
		}
	}
	b.Fatal("the guest says nothing of the agent's memory")
	return 0
}

// throughSessions compares a stream through a session with the same through exec.
func (b *bench) throughSessions(vm string) {
	command := banger.Exec{Args: []string{"head", "-c", strconv.FormatInt(b.bytes, 10), "/dev/zero"}}
	through := func() {
		_, err := b.client.StartSession(b.Context(), vm, banger.SessionSpec{Name: "stream", Command: command})
		b.must(err)
		var end banger.Session
		got, frames := int64(0), 0
		b.attach(vm, "stream", banger.SessionView{Position: new(uint64)}, func(t frame.Type, p []byte) bool {
			switch t {
			case frame.Stdout:
				got += int64(len(p))
				frames++
			case frame.Exit:
				b.must(json.Unmarshal(p, &end))
				return false
			}
			return true
		})
		if got != b.bytes {
			b.Fatalf("%d of %d bytes came out of the session, which ended as %+v", got, b.bytes, end)
		}
	}
	direct := func() {
		conn, err := b.client.Exec(b.Context(), vm, command)
		b.must(err)
		defer conn.Close()
		got := int64(0)
		b.each(conn, func(t frame.Type, p []byte) bool {
			if t == frame.Stdout {
				got += int64(len(p))
			}
			return t != frame.Exit
		})
		if got != b.bytes {
			b.Fatalf("%d of %d bytes came out of the command", got, b.bytes)
		}
	}
	rate := func(f func()) float64 { return float64(b.bytes) / (1 << 20) / timed(f).Seconds() }
	var us, them []float64
	for i := range b.pairs {
		turns := []func(){
			func() { us = append(us, rate(through)) },
			func() { them = append(them, rate(direct)) },
		}
		for j := range turns {
			turns[(i+j)%len(turns)]()
		}
		b.must(b.client.RemoveSession(b.Context(), vm, "stream", true))
		b.Logf("stream %d of %d: session %.0f MiB/s, exec %.0f MiB/s", i+1, b.pairs, us[i], them[i])
	}
	b.addPairs("stream through a session, beside exec", "MiB/s", us, them, minSessionRatio, true)
}
