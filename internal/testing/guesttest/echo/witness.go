package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// testimony is what a witness has seen since its start.
type testimony struct {
	Backwards bool  // the monotonic time went back
	Gaps      []gap // the times when it did not run
	Kept      string
	Inside    string // what a connection inside the guest carries that was open at the start
}

// gap is a time without a look at the clocks.
type gap struct {
	Length time.Duration // by the monotonic clock
	After  time.Time     // by the other clock, when it was over
}

// The looks of a witness at the clocks. A gap is noted if it lasts minGap or longer.
const (
	pace    = 2 * time.Millisecond
	minGap  = 200 * time.Millisecond
	maxGaps = 100
)

// keptFile is a file in memory.
const keptFile = "/dev/shm/kept"

// witnessAddress is where a witness gives its testimony.
const witnessAddress = "127.0.0.1:7777"

// witness looks at the clocks for ever, and tells each client that connects what it has seen.
func witness() error {
	listener, err := net.Listen("tcp", witnessAddress)
	if err != nil {
		return err
	}
	inner, outer, err := pair()
	if err != nil {
		return err
	}
	if err := os.WriteFile(keptFile, []byte("kept in memory"), 0o600); err != nil {
		return err
	}
	var mu sync.Mutex
	var seen testimony
	go watch(func(change func(*testimony)) {
		mu.Lock()
		defer mu.Unlock()
		change(&seen)
	})
	fmt.Println("ready")
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		mu.Lock()
		now := seen
		mu.Unlock()
		kept, _ := os.ReadFile(keptFile)
		now.Kept, now.Inside = string(kept), carry(inner, outer)
		json.NewEncoder(conn).Encode(now)
		conn.Close()
	}
}

// ownInit moves all processes of the root group to a group beside itself, as systemd does, and is a witness then.
func ownInit() error {
	const root, scope = "/sys/fs/cgroup/", "/sys/fs/cgroup/init.scope/"
	if err := os.Mkdir(scope, 0o755); err != nil {
		return err
	}
	list, err := os.ReadFile(root + "cgroup.procs")
	if err != nil {
		return err
	}
	for pid := range strings.FieldsSeq(string(list)) {
		if exe, _ := os.Readlink("/proc/" + pid + "/exe"); exe == "" {
			continue // the kernel's threads have no program
		}
		if err := os.WriteFile(scope+"cgroup.procs", []byte(pid), 0); err != nil {
			return err
		}
	}
	return witness()
}

// watch notes gaps.
func watch(note func(func(*testimony))) {
	last := monotonic()
	for {
		time.Sleep(pace)
		now := monotonic()
		if now < last {
			note(func(t *testimony) { t.Backwards = true })
		}
		if now-last >= minGap {
			after := time.Now()
			note(func(t *testimony) {
				if len(t.Gaps) < maxGaps {
					t.Gaps = append(t.Gaps, gap{now - last, after})
				}
			})
		}
		last = now
	}
}

// monotonic returns what CLOCK_MONOTONIC shows.
func monotonic() time.Duration {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return time.Duration(ts.Nano())
}

// pair returns the two ends of a TCP connection inside the guest.
func pair() (a, b net.Conn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	b, err = l.Accept()
	return a, b, err
}

// carry sends a word from a to b, and returns what arrives.
func carry(a, b net.Conn) string {
	if _, err := io.WriteString(a, "word"); err != nil {
		return err.Error()
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(b, got); err != nil {
		return err.Error()
	}
	return string(got)
}

// testify prints the testimony of the witness.
func testify() error {
	conn, err := net.Dial("tcp", witnessAddress)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = io.Copy(os.Stdout, conn)
	return err
}

// dial connects to an address that never answers, and prints what ends that.
func dial(address string) error {
	fmt.Println("dialling")
	for {
		conn, err := net.Dial("tcp", address)
		switch {
		case err == nil:
			conn.Close()
			return errors.New("somebody answers")
		case errors.Is(err, syscall.ECONNABORTED):
			fmt.Println("the connection was reset")
			return nil
		}
	}
}
