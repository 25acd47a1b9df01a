package shim

import (
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestSocketsComeBeforeAnAnswer sends batches of descriptors as a shim does, and too many of them.
func TestSocketsComeBeforeAnAnswer(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for name, c := range map[string]struct {
		batches []int
		answer  string
		words   string // of the error; "" for none
	}{
		"no sockets":      {nil, "{}", ""},
		"one batch":       {[]int{3}, "{}", ""},
		"the most":        {[]int{MaxFiles, MaxFiles, 1}, "{}", ""},
		"too many":        {slices.Repeat([]int{MaxFiles}, maxSockets/MaxFiles+1), "", "too many"},
		"no answer":       {[]int{1}, "", "unexpected EOF"},
		"nothing at all":  {nil, "", "unexpected EOF"},
		"spaces, no file": {[]int{0, 0}, "{}", ""},
	} {
		t.Run(name, func(t *testing.T) {
			near, far := pair(t)
			go func() { // ends when all is read, or with near
				for _, n := range c.batches {
					var fds []int
					for range n {
						fds = append(fds, int(null.Fd()))
					}
					if _, _, err := near.WriteMsgUnix([]byte(" "), syscall.UnixRights(fds...), nil); err != nil {
						return
					}
				}
				io.WriteString(near, c.answer)
				near.CloseWrite()
			}()
			list, rest, err := readSockets(far)
			defer closeAll(list)
			if (err == nil) != (c.words == "") || err != nil && !strings.Contains(err.Error(), c.words) {
				t.Fatalf("it ends with %v", err)
			}
			if err != nil {
				return
			}
			want := 0
			for _, n := range c.batches {
				want += n
			}
			if text, err := io.ReadAll(rest); string(text) != c.answer || err != nil || len(list) != want {
				t.Errorf("there are %d descriptors and %q, %v", len(list), text, err)
			}
		})
	}
}

// pair returns the ends of a connection.
func pair(t *testing.T) (near, far *net.UnixConn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends []*net.UnixConn
	for _, fd := range fds {
		file := os.NewFile(uintptr(fd), "end")
		conn, err := net.FileConn(file)
		file.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		ends = append(ends, conn.(*net.UnixConn))
	}
	return ends[0], ends[1]
}
