package server

import (
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"banger/internal/network"
	"banger/internal/shim"
	"banger/internal/vmm"
)

// TestReadCall checks what is read of a call, and that nothing behind its line is read.
func TestReadCall(t *testing.T) {
	for name, c := range map[string]struct {
		sent  string
		files int // how many descriptors come with the first byte
		line  string
		file  bool
		wrong bool
	}{
		"a call":                {"STATUS\nrest", 0, "STATUS", false, false},
		"an empty line":         {"\nrest", 0, "", false, false},
		"with a descriptor":     {"FORWARD {}\nrest", 1, "FORWARD {}", true, false},
		"with two descriptors":  {"FORWARD {}\nrest", 2, "FORWARD {}", false, false},
		"no end":                {"STATUS", 0, "", false, true},
		"no end, and a file":    {"FORWARD", 1, "", true, true},
		"nothing":               {"", 0, "", false, true},
		"a line without an end": {strings.Repeat("x", shim.MaxCall+2), 0, "", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			near, far := unixPair(t)
			go func() { // ends when all is read, or when the test closes near
				var fds []int
				for range c.files {
					fds = append(fds, int(os.Stdin.Fd()))
				}
				if c.sent != "" {
					near.WriteMsgUnix([]byte(c.sent[:1]), syscall.UnixRights(fds...), nil)
					io.WriteString(near, c.sent[1:])
				}
				near.CloseWrite()
			}()
			line, file, err := readCall(far)
			if (err != nil) != c.wrong || !c.wrong && line != c.line || !c.wrong && (file != nil) != c.file {
				t.Errorf("it is %.40q, %v, %v", line, file, err)
			}
			if c.wrong {
				return
			}
			file.Close()
			if rest, err := io.ReadAll(far); string(rest) != "rest" || err != nil {
				t.Errorf("behind the call there is %q, %v", rest, err)
			}
		})
	}
}

// TestHowANetDeviceIsConnected checks each kind of attachment, with what the VMM then gets.
func TestHowANetDeviceIsConnected(t *testing.T) {
	for want, n := range map[string]*shim.Network{
		"none":                       nil,
		"socket":                     {MAC: "m"},
		"device tap0 in a namespace": {MAC: "m", Tap: "tap0"},
		"device tap0":                {MAC: "m", Tap: "tap0", Address: "10.0.0.2"},
	} {
		p, err := openNIC(plan{shim.Spec{Network: n}}, nil)
		check(t, err)
		if got := describeNIC(p.config(vmm.Config{})); got != want {
			t.Errorf("it is %s, not %s", got, want)
		}
		p.close()
	}
	file, err := os.Open(os.DevNull)
	check(t, err)
	handed := &nic{network: &shim.Network{MAC: "m", Address: "10.0.0.2"}, tap: file}
	defer handed.close()
	if got := describeNIC(handed.config(vmm.Config{})); got != "tap" {
		t.Errorf("a tap that was handed over is %s", got)
	}
}

func describeNIC(c vmm.Config) string {
	if len(c.NICs) == 0 {
		return "none"
	}
	nic := c.NICs[0]
	switch {
	case nic.Socket != nil && nic.MTU == network.UserMTU:
		return "socket"
	case nic.Tap != nil:
		return "tap"
	case c.Namespaces && len(c.WrapFiles) == 1 && nic.MTU == network.UserMTU:
		return "device " + nic.Device + " in a namespace"
	}
	return "device " + nic.Device
}

// TestATapComesFromTheWrapper hands a descriptor over, as the wrapper of a VMM does, and less than that.
func TestATapComesFromTheWrapper(t *testing.T) {
	for name, c := range map[string]struct {
		hand  func(fd int) error
		words string // of the error; "" for none
	}{
		"a tap":        {func(fd int) error { return syscall.Sendmsg(fd, []byte{1}, syscall.UnixRights(0), nil, 0) }, ""},
		"no tap":       {func(fd int) error { return syscall.Sendmsg(fd, []byte{1}, nil, nil, 0) }, "handed no tap over"},
		"it has ended": {func(int) error { return nil }, "receiving the tap"},
	} {
		tap, err := newInsideTap()
		check(t, err)
		theirs, err := syscall.Dup(int(tap.theirs.Fd()))
		check(t, err)
		check(t, c.hand(theirs))
		syscall.Close(theirs)
		f, err := tap.receive()
		if (err == nil) != (c.words == "") || err != nil && !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", name, err)
		}
		f.Close()
		tap.close()
	}
}
