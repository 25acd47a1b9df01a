package agent

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"banger"
)

// smallOutput is the size in bytes of the first buffer for a command's output:
// most commands say little, and hundreds may run.
const smallOutput = 4 << 10

var largeOutputs = sync.Pool{New: func() any {
	b := make([]byte, banger.FrameHeader+banger.MaxData)
	return &b
}}

// copyFrom sends what f gives until it ends or stopOutput was called.
func (x *execution) copyFrom(f *os.File, t banger.FrameType) {
	small := make([]byte, banger.FrameHeader+smallOutput)
	var large *[]byte // for a command that says much, of the pool
	giveBack := func() {
		if large != nil {
			largeOutputs.Put(large)
			large = nil
		}
	}
	defer giveBack()
	left := -1 // once stopped: what may still be taken
	for left != 0 {
		buf := small
		if large != nil {
			buf = *large
		}
		n, err := f.Read(buf[banger.FrameHeader:])
		if n > 0 {
			x.send(buf[:banger.FrameHeader+n], t)
		}
		switch {
		case large == nil && n == smallOutput:
			large = largeOutputs.Get().(*[]byte)
		case large != nil && n < smallOutput:
			giveBack()
		}
		if left > 0 && n > 0 {
			left = max(left-n, 0)
			f.SetReadDeadline(time.Now().Add(drainTime / 10))
		}
		// The client may have been so slow that the command's last output is
		// still in the pipe.
		if left < 0 && errors.Is(err, os.ErrDeadlineExceeded) {
			left, err = pipeSize, f.SetReadDeadline(time.Now().Add(drainTime/10))
		}
		if err != nil {
			if !isEnd(err) {
				warn(err)
			}
			return
		}
	}
}

// isEnd says that output has ended as it does; EIO is a terminal whose last
// holder is gone (pty(7)).
func isEnd(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, unix.EIO) || errors.Is(err, os.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded)
}
