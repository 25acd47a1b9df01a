package agenttest

import (
	"crypto/sha3"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"banger/internal/testing/processtest"

	"golang.org/x/sys/unix"
)

// Within returns what c gives. The test fails if that takes longer than processtest.Patience.
func Within[T any](t testing.TB, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(processtest.Patience):
		t.Fatalf("this does not happen: %s", what)
	}
	return v
}

// Await polls for what has no event.
func Await(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(processtest.Patience); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("this does not happen: %s", what)
		}
	}
}

// Noise returns n bytes without a pattern, the same ones for the same n.
func Noise(n int) []byte {
	b := make([]byte, n)
	h := sha3.NewSHAKE128()
	h.Write([]byte{byte(n)})
	h.Read(b)
	return b
}

// Fifo is a named pipe that shows when the processes that have it open for writing are gone.
type Fifo struct {
	Path string
	end  chan []byte // what was written, once all writers are gone
}

// NewFifo makes a named pipe and reads it.
func NewFifo(t testing.TB) *Fifo {
	f := &Fifo{filepath.Join(t.TempDir(), "fifo"), make(chan []byte, 1)}
	if err := unix.Mkfifo(f.Path, 0o666); err != nil {
		t.Fatal(err)
	}
	go func() {
		file, err := os.Open(f.Path)
		if err == nil {
			data, _ := io.ReadAll(file)
			file.Close()
			f.end <- data
		}
	}()
	return f
}

// AwaitEnd waits until all writers are gone, and returns what they wrote.
func (f *Fifo) AwaitEnd(t testing.TB) string {
	t.Helper()
	return string(Within(t, "the command ends", f.end))
}

// Echo answers each connection of l with what it has sent, once it has sent all. It
// closes l at the test's end.
func Echo(t testing.TB, l net.Listener) {
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				data, _ := io.ReadAll(conn)
				conn.Write(data)
				conn.Close()
			}()
		}
	}()
}
