package command

import (
	"errors"
	"io"
	"os"
	"slices"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/agent/vector"
)

// PipeSize is the size in bytes of a command's pipes. The more they hold, the less
// often the guest must switch between the command and the agent.
const PipeSize = 256 << 10

// DrainTime is how long output is still taken after the command's end, when a
// grandchild holds the pipes open.
const DrainTime = time.Second

// makeStdio makes the command's ends, which it returns, and ours, which it sets in p.
// The command's are bare descriptors: a File of each would cost an emulated guest
// seven calls.
func (p *Process) makeStdio(e banger.Exec) (files []uintptr, err error) {
	if e.TTY {
		return p.makeTerminal(e)
	}
	defer func() {
		if err != nil {
			closeAll(files)
			p.Close()
		}
	}()
	if e.Stdin {
		r, w, err := newPipe(unix.O_WRONLY)
		if err != nil {
			return nil, err
		}
		files, p.stdin = append(files, r), w
	} else {
		null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		files = append(files, uintptr(null))
	}
	for _, ours := range []**os.File{&p.stdout, &p.stderr} {
		w, r, err := newPipe(unix.O_RDONLY)
		if err != nil {
			return files, err
		}
		files, *ours = append(files, w), r
	}
	return files, nil
}

// newPipe returns the command's end of a pipe and ours, which is open for mode.
func newPipe(mode int) (theirs uintptr, ours *os.File, err error) {
	var fds [2]int // read, write
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return 0, nil, err
	}
	unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, PipeSize) // a pipe that stays smaller works as well
	t, o := fds[0], fds[1]
	if mode == unix.O_RDONLY {
		t, o = o, t
	}
	unix.FcntlInt(uintptr(o), unix.F_SETFL, mode|unix.O_NONBLOCK) // cannot fail
	return uintptr(t), os.NewFile(uintptr(o), "pipe"), nil
}

func (p *Process) makeTerminal(e banger.Exec) ([]uintptr, error) {
	master, slave, err := pty.Open()
	if err != nil {
		return nil, err
	}
	defer slave.Close()
	if e.Rows > 0 && e.Cols > 0 {
		pty.Setsize(master, &pty.Winsize{Rows: e.Rows, Cols: e.Cols})
	}
	fd, err := unix.FcntlInt(slave.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		master.Close()
		return nil, err
	}
	p.tty, p.stdin, p.stdout = master, master, master
	return []uintptr{uintptr(fd), uintptr(fd), uintptr(fd)}, nil
}

// setModes changes a terminal's modes, before its command runs.
func setModes(fd int, change func(*unix.Termios)) {
	if change == nil {
		return
	}
	if t, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
		change(t)
		unix.IoctlSetTermios(fd, unix.TCSETS, t)
	}
}

// closeAll closes the command's descriptors. A terminal is in the list three times.
func closeAll(files []uintptr) {
	for _, fd := range slices.Compact(files) {
		unix.Close(int(fd))
	}
}

// Write writes to the stdin of a command that has one.
func (p *Process) Write(b []byte) (int, error) { return p.stdin.Write(b) }

// FeedVector writes all of parts, whose elements it changes, to the command's stdin, if it has one. Once the command
// reads no more, FeedVector closes the pipe, and all that follows is dropped.
func (p *Process) FeedVector(parts [][]byte) {
	if p.stdin == nil {
		return
	}
	raw, err := p.stdin.SyscallConn()
	if err == nil {
		err = vector.Write(raw, parts)
	}
	if err != nil && p.tty == nil {
		p.stdin.Close()
	}
}

// EndStdin ends the command's stdin: it closes the pipe, or sends a terminal its
// end-of-file character.
func (p *Process) EndStdin() {
	switch {
	case p.tty != nil:
		p.tty.Write([]byte{4})
	case p.stdin != nil:
		p.stdin.Close()
	}
}

// AwaitEnd returns when the command has ended and its output was taken. drained is
// closed by the readers of Stdout and Stderr when both have come to their ends. When
// a grandchild holds the pipes open, AwaitEnd ends them after DrainTime.
func (p *Process) AwaitEnd(drained <-chan struct{}) {
	<-p.done
	select {
	case <-drained:
	case <-time.After(DrainTime):
		p.stopOutput()
		<-drained
	}
}

func (p *Process) stopOutput() {
	now := time.Now()
	p.stdout.SetReadDeadline(now)
	if p.stderr != nil {
		p.stderr.SetReadDeadline(now)
	}
}

// untilStopped is the value of output.left before stopOutput.
const untilStopped = -1

// output reads a command's pipe or terminal until that ends or stopOutput is called.
// What is in the pipe then is still read: the client may have been so slow that the
// command's last output is there.
type output struct {
	file *os.File
	left int // how many bytes may still be read after stopOutput, or untilStopped
}

// Read returns io.EOF in whatever way the output ends.
func (o *output) Read(b []byte) (int, error) {
	for o.left != 0 {
		n, err := o.file.Read(b)
		if o.left > 0 && n > 0 {
			o.left = max(o.left-n, 0)
			o.file.SetReadDeadline(time.Now().Add(DrainTime / 10))
		}
		if o.left == untilStopped && errors.Is(err, os.ErrDeadlineExceeded) {
			o.left, err = PipeSize, o.file.SetReadDeadline(time.Now().Add(DrainTime/10))
		}
		if isEnd(err) {
			err = io.EOF
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.EOF
}

// isEnd reports whether an error is the end of an output. EIO is a terminal whose
// last holder is gone (pty(7)).
func isEnd(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, unix.EIO) || errors.Is(err, os.ErrClosed) ||
		errors.Is(err, os.ErrDeadlineExceeded)
}
