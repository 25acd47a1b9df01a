package channel

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestThePortMayComeLate: the driver of a serial device makes its ports after it has started, so the agent must wait
// for the port to the host, and for no port of a guest that has no such device.
func TestThePortMayComeLate(t *testing.T) {
	var pair [2]int
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	p := portFinder{sys: t.TempDir(), dev: t.TempDir(), announced: pair[0]}
	write := func(path, content string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.open(time.Now().Add(time.Hour)); err != errNoPort {
		t.Fatalf("without a serial device: %v", err)
	}
	write(p.sys+"/bus/virtio/devices/virtio0/device", "0x0002\n")
	write(p.sys+"/bus/virtio/devices/virtio5/device", "0x0003\n")
	if _, err := p.open(time.Now()); err != errNoPort {
		t.Fatalf("at the deadline: %v", err)
	}
	found := make(chan int)
	go func() { // ends with the port
		fd, err := p.open(time.Now().Add(time.Minute))
		if err != nil {
			t.Errorf("a port that comes late: %v", err)
		}
		found <- fd
	}()
	unix.Write(pair[1], []byte("add@/devices/virtio5/virtio-ports/vport5p1"))
	write(p.dev+"/vport5p1", "")
	write(p.sys+"/class/virtio-ports/vport5p0/name", "another\n")
	write(p.sys+"/class/virtio-ports/vport5p1/name", portName+"\n")
	unix.Write(pair[1], []byte("change@/devices/virtio5/virtio-ports/vport5p1"))
	unix.Close(<-found)
}
