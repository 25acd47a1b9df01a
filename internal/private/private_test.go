package private_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/private"
)

const stranger = 12345

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ground returns a directory in a sticky one like /tmp, whose parents belong to root.
func ground(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "private-")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func asRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("giving files to another user needs root")
	}
}

func TestCheck(t *testing.T) {
	asRoot(t)
	for name, tt := range map[string]struct {
		make func(dir string) error // dir exists
		path string                 // below dir
		say  string                 // part of the error; "" means no error
	}{
		"an own directory":     {func(d string) error { return os.MkdirAll(d+"/a/b", 0o700) }, "a/b", ""},
		"that others may read": {func(d string) error { return os.MkdirAll(d+"/a/b", 0o755) }, "a/b", ""},
		"of another user": {func(d string) error {
			return errors.Join(os.Mkdir(d+"/a", 0o700), os.Chown(d+"/a", stranger, stranger))
		}, "a", "belongs to user id 12345"},
		"in one of another user": {func(d string) error {
			return errors.Join(os.MkdirAll(d+"/a/b", 0o700), os.Chown(d+"/a", stranger, stranger))
		}, "a/b", "belongs to user id 12345"},
		"that others may change": {func(d string) error {
			return errors.Join(os.Mkdir(d+"/a", 0o700), os.Chmod(d+"/a", 0o707))
		}, "a", "other users may replace"},
		"that is sticky, and others": {func(d string) error {
			return errors.Join(os.Mkdir(d+"/a", 0o700), os.Chmod(d+"/a", 0o707|fs.ModeSticky))
		}, "a", "other users may replace"},
		"in one that others may change": {func(d string) error {
			return errors.Join(os.MkdirAll(d+"/a/b", 0o700), os.Chmod(d+"/a", 0o707))
		}, "a/b", "other users may replace"},
		"in one that is sticky": {func(d string) error {
			return errors.Join(os.MkdirAll(d+"/a/b", 0o700), os.Chmod(d+"/a", 0o777|fs.ModeSticky))
		}, "a/b", ""},
		"in one of another's group": {func(d string) error {
			return errors.Join(os.MkdirAll(d+"/a/b", 0o700), os.Chown(d+"/a", 0, stranger), os.Chmod(d+"/a", 0o770))
		}, "a/b", "other users may replace"},
		"in one of the own group": {func(d string) error {
			return errors.Join(os.MkdirAll(d+"/a/b", 0o700), os.Chmod(d+"/a", 0o770))
		}, "a/b", ""},
		"a link": {func(d string) error {
			return errors.Join(os.Mkdir(d+"/a", 0o700), os.Symlink("a", d+"/l"))
		}, "l", "is a symbolic link"},
		"behind an own link": {func(d string) error {
			return errors.Join(os.MkdirAll(d+"/a/b", 0o700), os.Symlink("a", d+"/l"))
		}, "l/b", ""},
		"behind another's link": {func(d string) error {
			return errors.Join(os.MkdirAll(d+"/a/b", 0o700), os.Symlink("a", d+"/l"), os.Lchown(d+"/l", stranger, stranger))
		}, "l/b", "belongs to user id 12345"},
		"behind a link to another's": {func(d string) error {
			return errors.Join(os.MkdirAll(d+"/a/b", 0o700), os.Chown(d+"/a", stranger, stranger), os.Symlink(d+"/a", d+"/l"))
		}, "l/b", "belongs to user id 12345"},
		"behind links in a circle": {func(d string) error {
			return errors.Join(os.Symlink("m", d+"/l"), os.Symlink("l", d+"/m"))
		}, "l/b", "too many levels"},
		"a file": {func(d string) error { return os.WriteFile(d+"/a", nil, 0o600) }, "a",
			"is not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := ground(t)
			check(t, tt.make(dir))
			err := private.Check(filepath.Join(dir, tt.path))
			if tt.say == "" && err != nil || tt.say != "" && (err == nil || !strings.Contains(err.Error(), tt.say)) {
				t.Errorf("it says %v", err)
			}
		})
	}
	if err := private.Check(filepath.Join(ground(t), "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a directory that is absent it says %v", err)
	}
}

func TestMakeGivesModesWhateverTheUmask(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o777))
	dir := ground(t)
	check(t, private.Make(dir+"/a/b", 0o711))
	for _, d := range []string{"/a", "/a/b"} {
		wantMode(t, dir+d, 0o711)
	}
	check(t, os.Chmod(dir+"/a/b", 0o777))
	check(t, private.Make(dir+"/a/b", 0o700)) // a wrong one is corrected
	wantMode(t, dir+"/a/b", 0o700)
	wantMode(t, dir+"/a", 0o711)
}

func wantMode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	info, err := os.Lstat(path)
	check(t, err)
	if info.Mode().Perm() != want {
		t.Errorf("%s has mode %04o, not %04o", path, info.Mode().Perm(), want)
	}
}

func TestMakeRefusesWhatAnotherMadeFirst(t *testing.T) {
	asRoot(t)
	dir := ground(t)
	check(t, errors.Join(os.Mkdir(dir+"/a", 0o777), os.Chown(dir+"/a", stranger, stranger)))
	if err := private.Make(dir+"/a/b", 0o700); banger.CodeOf(err) != banger.CodeDenied {
		t.Errorf("it says %v", err)
	}
	if _, err := os.Lstat(dir + "/a/b"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it made something there: %v", err)
	}
}

func TestEntriesOfAnotherUserAreFound(t *testing.T) {
	asRoot(t)
	dir := ground(t)
	check(t, os.WriteFile(dir+"/own", nil, 0o600))
	check(t, private.CheckEntries(dir))
	check(t, errors.Join(os.WriteFile(dir+"/planted", nil, 0o600), os.Chown(dir+"/planted", stranger, stranger)))
	if err := private.CheckEntries(dir); banger.CodeOf(err) != banger.CodeDenied ||
		!strings.Contains(err.Error(), "planted") {
		t.Errorf("it says %v", err)
	}
}

func TestRestrict(t *testing.T) {
	dir := ground(t)
	check(t, errors.Join(os.MkdirAll(dir+"/a", 0o755), os.MkdirAll(dir+"/vms/x", 0o755),
		os.WriteFile(dir+"/outside", nil, 0o644), os.Symlink("../outside", dir+"/a/link"),
		os.WriteFile(dir+"/a/f", nil, 0o644), os.WriteFile(dir+"/vms/x/f", nil, 0o644)))
	check(t, private.Restrict(dir+"/a", 0o077, func(string) bool { return false }))
	check(t, private.Restrict(dir+"/vms", 0o077, func(p string) bool { return filepath.Base(p) == "x" }))
	wantMode(t, dir+"/a/f", 0o600)
	wantMode(t, dir+"/outside", 0o644) // no link is followed
	wantMode(t, dir+"/vms/x", 0o755)
	wantMode(t, dir+"/vms/x/f", 0o644)
}

func TestDialSaysNothingToAStranger(t *testing.T) {
	asRoot(t)
	dir := ground(t)
	// The stranger can now make his socket. Afterwards the directory looks private again.
	check(t, os.Chmod(dir, 0o777))
	path := dir + "/s.sock"
	var ln net.Listener
	as(stranger, func() {
		var err error
		ln, err = net.Listen("unix", path)
		check(t, err)
	})
	defer ln.Close()
	heard := make(chan []byte)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			t.Error(err)
			close(heard)
			return
		}
		got, _ := io.ReadAll(c)
		heard <- got
	}()
	check(t, os.Chmod(dir, 0o700))
	if _, err := private.Dial(context.Background(), path); banger.CodeOf(err) != banger.CodeDenied ||
		!strings.Contains(err.Error(), "user id 12345") {
		t.Errorf("it says %v", err)
	}
	if got := <-heard; len(got) != 0 {
		t.Errorf("the stranger hears %q", got)
	}
}

// as runs f in a thread of another user. Only system calls for a single thread can do that.
func as(uid int, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if _, _, errno := syscall.RawSyscall(syscall.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno == 0 {
			f()
		}
	}()
	<-done
}

func TestListenHearsNoStranger(t *testing.T) {
	asRoot(t)
	dir := ground(t)
	path := dir + "/s.sock"
	ln, err := private.Listen(path)
	check(t, err)
	defer ln.Close()
	wantMode(t, path, 0o600)
	check(t, errors.Join(os.Chmod(dir, 0o711), os.Chmod(path, 0o666))) // the modes must not keep the other user out
	accepted := make(chan net.Conn)
	go func() { // ends with ln
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	as(stranger, func() {
		conn, err := net.Dial("unix", path)
		check(t, err)
		defer conn.Close()
		if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("the stranger is told %d bytes, %v", n, err)
		}
	})
	select {
	case <-accepted:
		t.Error("the stranger is heard")
	default:
	}
	conn, err := private.Dial(context.Background(), path)
	check(t, err)
	defer conn.Close()
	(<-accepted).Close()
}

func TestALockNamesItsOwner(t *testing.T) {
	dir := ground(t)
	lock, before, err := private.Take(dir, "lock", time.Second)
	check(t, err)
	if before != (private.Owner{}) {
		t.Errorf("a new one names %+v", before)
	}
	me := private.Owner{PID: os.Getpid(), State: "/a", Run: "/b"}
	check(t, lock.Write(private.Owner{PID: 1, State: "/somewhere/far", Run: "/somewhere/else"}))
	check(t, lock.Write(me))
	if _, owner, err := private.Take(dir, "lock", 0); !errors.Is(err, private.ErrLocked) || owner != me {
		t.Errorf("a second one gets %+v, %v", owner, err)
	}
	check(t, lock.Release())
	again, owner, err := private.Take(dir, "lock", time.Minute)
	check(t, err)
	defer again.Release()
	if owner != me {
		t.Errorf("afterwards it names %+v", owner)
	}
}

func TestALockFileIsNoLink(t *testing.T) {
	dir := ground(t)
	check(t, os.WriteFile(dir+"/victim", []byte("precious"), 0o644))
	check(t, os.Symlink("victim", dir+"/lock"))
	if _, _, err := private.Take(dir, "lock", time.Second); err == nil {
		t.Error("it follows a link")
	}
	wantMode(t, dir+"/victim", 0o644)
}

func TestARemovedLockIsNotHeldTwice(t *testing.T) {
	dir := ground(t)
	first, _, err := private.Take(dir, "lock", time.Second)
	check(t, err)
	type result struct {
		lock *private.Lock
		err  error
	}
	second := make(chan result)
	go func() { // it waits for the lock of a file that is removed before it gets the lock
		l, _, err := private.Take(dir, "lock", time.Minute)
		second <- result{l, err}
	}()
	check(t, first.Remove())
	r := <-second
	check(t, r.err)
	defer r.lock.Release()
	if _, _, err := private.Take(dir, "lock", 10*time.Millisecond); !errors.Is(err, private.ErrLocked) {
		t.Errorf("a third one gets %v", err)
	}
}
