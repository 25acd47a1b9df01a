package vmmtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"banger"
	"banger/internal/frame"
	"banger/internal/guest"
	"banger/internal/vmm"
)

// State is what a guest reports about itself (guesttest/echo).
type State struct {
	Hostname, MachineID string
	Time                time.Time
	Random              []byte
	MACs, Addresses     []string
	Default             bool   // there is a default route
	Cmdline             string // of the kernel
}

// StateOf asks a guest for its State.
func StateOf(t *testing.T, vm *VM) (s State) {
	t.Helper()
	out := Output(t, vm, "/bin/state")
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("%v: %q", err, out)
	}
	return s
}

// Configure sends a guest its configuration.
func Configure(t *testing.T, vm *VM, c guest.Config) {
	t.Helper()
	if _, err := vm.Agent.Configure(ctx(t), c); err != nil {
		t.Fatal(err)
	}
}

// Commands returns how many commands the suite runs in one guest: 1,000, or BANGER_TEST_COMMANDS,
// which is for guests that are emulated twice.
func Commands(t *testing.T) int {
	text := os.Getenv("BANGER_TEST_COMMANDS")
	if text == "" {
		return 1000
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("BANGER_TEST_COMMANDS is %q, not a number of commands", text)
	}
	return n
}

// manyExecs runs Commands commands, eight at a time.
func manyExecs(t *testing.T, d vmm.Driver, c vmm.Config) {
	commands := Commands(t)
	vm := Start(t, d, c)
	Configure(t, vm, guest.Config{Hostname: "many"})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := i; n < commands; n += 8 {
				word := fmt.Sprint("word", n)
				if out, err := output(t.Context(), vm, nil, "/bin/echo", word); out != word+"\n" || err != nil {
					t.Errorf("command %d says %q, %v", n, out, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// Output runs a command in the guest and returns what it prints.
func Output(t *testing.T, vm *VM, args ...string) string {
	t.Helper()
	return Pipe(t, vm, nil, args...)
}

// Try is like Output, but the command may fail.
func Try(t *testing.T, vm *VM, args ...string) (string, error) {
	return output(ctx(t), vm, nil, args...)
}

// Pipe is like Output, with stdin for the command. If stdin is nil, the command has no input.
func Pipe(t *testing.T, vm *VM, stdin []byte, args ...string) string {
	t.Helper()
	out, err := output(ctx(t), vm, stdin, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func output(ctx context.Context, vm *VM, stdin []byte, args ...string) (out string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := vm.Agent.Exec(ctx, banger.Exec{Args: args, Stdin: stdin != nil})
	if err != nil {
		return "", err
	}
	fed := make(chan error, 1)
	go func() { fed <- feed(conn, stdin) }()
	defer func() {
		conn.Close() // unblocks a feeder that waits
		if ferr := <-fed; err == nil {
			err = ferr
		}
	}()
	defer context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })()
	return gather(conn)
}

// feed sends stdin and then its end. If stdin is nil, it sends nothing.
func feed(conn net.Conn, stdin []byte) error {
	if stdin == nil {
		return nil
	}
	for part := range slices.Chunk(stdin, frame.MaxData) {
		if err := frame.Write(conn, frame.Stdin, part); err != nil {
			return fmt.Errorf("sending stdin: %w", err)
		}
	}
	return frame.Write(conn, frame.StdinEOF, nil)
}

// gather returns the output of a command that succeeds.
func gather(conn net.Conn) (string, error) {
	frames := frame.NewReader(conn)
	var out bytes.Buffer
	for {
		kind, payload, err := frames.Next()
		switch {
		case err != nil:
			return out.String(), err
		case kind == frame.Stdout:
			out.Write(payload)
		case kind == frame.Error:
			return out.String(), fmt.Errorf("the command failed: %s", payload)
		case kind == frame.Exit:
			var exit banger.Exit
			if err := json.Unmarshal(payload, &exit); err != nil || exit.Status() != 0 {
				return out.String(), fmt.Errorf("the command ended with %s, %v", payload, err)
			}
			return out.String(), nil
		}
	}
}
