//go:build power

package power

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	fsSize  = 320 << 20 // bytes of the file system
	ackSize = 64 << 10  // size in bytes of the notes behind the file system
)

// drive is a disk with an ext4. QEMU logs each write and each flush of the disk, in the order in
// which they reach it. Behind the file system are sectors for notes, which stand for what the
// outside world knows; no cut loses them.
type drive struct {
	dir  string // base.img, data.img and log.img are in it
	file string // what QEMU exports by FUSE
	loop string
	mnt  string
	pid  int // of qemu-storage-daemon

	mu    sync.Mutex
	notes *os.File
}

// tool runs a program of the host and returns its output.
func tool(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin", "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), err
}

func mustTool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := tool(name, args...)
	check(t, err)
	return out
}

// newDrive makes a drive below dir and mounts it.
func newDrive(t *testing.T, dir string) *drive {
	t.Helper()
	d := &drive{dir: dir, file: filepath.Join(dir, "disk"), mnt: filepath.Join(dir, "mnt")}
	data, log := filepath.Join(dir, "data.img"), filepath.Join(dir, "log.img")
	check(t, os.WriteFile(data, nil, 0o600))
	check(t, os.Truncate(data, fsSize+ackSize))
	mustTool(t, "mkfs.ext4", "-q", "-F", "-b", "4096", "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0",
		data, fmt.Sprintf("%dk", fsSize>>10))
	mustTool(t, "cp", "--sparse=always", data, filepath.Join(dir, "base.img"))
	check(t, os.WriteFile(log, nil, 0o600))
	check(t, os.Truncate(log, 1<<40)) // sparse, so it does not grow later
	check(t, os.WriteFile(d.file, nil, 0o600))
	check(t, os.Mkdir(d.mnt, 0o700))
	node := func(name, path string) string {
		return fmt.Sprintf(`{"driver":"file","node-name":%q,"filename":%q,"cache":{"no-flush":true}}`, name, path)
	}
	pidfile := filepath.Join(dir, "pid")
	t.Cleanup(func() { d.end(t) })
	mustTool(t, "qemu-storage-daemon", "--daemonize", "--pidfile", pidfile,
		"--blockdev", node("data", data), "--blockdev", node("log", log),
		"--blockdev", `{"driver":"blklogwrites","node-name":"disk","file":"data","log":"log","log-sector-size":512}`,
		"--export", `{"type":"fuse","id":"disk","node-name":"disk","mountpoint":`+strconv.Quote(d.file)+`,"writable":true}`)
	pid, err := os.ReadFile(pidfile)
	check(t, err)
	d.pid, err = strconv.Atoi(strings.TrimSpace(string(pid)))
	check(t, err)
	// With direct I/O over QEMU's FUSE export, the log would differ from what was written.
	d.loop = mustTool(t, "losetup", "--direct-io=off", "--find", "--show", d.file)
	// This switches off a feature of ext4 that hides a missing fsync: it writes out a file that
	// replaces another.
	mustTool(t, "mount", "-t", "ext4", "-o", "noauto_da_alloc", d.loop, d.mnt)
	d.notes, err = os.OpenFile(d.file, os.O_WRONLY, 0)
	check(t, err)
	return d
}

// note records how many acknowledgements a client has. The note is logged after all earlier writes,
// and causes no flush.
func (d *drive) note(client, acknowledged int) error {
	var sector [512]byte
	binary.LittleEndian.PutUint64(sector[:], uint64(acknowledged))
	d.mu.Lock()
	defer d.mu.Unlock()
	_, err := d.notes.WriteAt(sector[:], fsSize+int64(client)*512)
	return err
}

// close unmounts the file system and ends QEMU. The log is then complete.
func (d *drive) close(t *testing.T) {
	t.Helper()
	mustTool(t, "umount", d.mnt)
	mustTool(t, "losetup", "-d", d.loop)
	d.loop = ""
	check(t, d.notes.Sync())
	check(t, d.notes.Close())
	d.end(t)
}

// end removes whatever still exists.
func (d *drive) end(t *testing.T) {
	if d.loop != "" {
		tool("umount", "-l", d.mnt)
		tool("losetup", "-d", d.loop)
		d.loop = ""
	}
	if d.pid == 0 {
		return
	}
	syscall.Kill(d.pid, syscall.SIGTERM)
	limit := time.Now().Add(patience)
	for ; syscall.Kill(d.pid, 0) == nil; time.Sleep(10 * time.Millisecond) { // it is not our child
		if time.Now().After(limit) {
			t.Errorf("qemu-storage-daemon, process %d, does not end", d.pid)
			break
		}
	}
	d.pid = 0
}
