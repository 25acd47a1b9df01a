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

// borrower is a stream that lends buffers and writes them without a copy.
type borrower interface {
	Borrow() []byte // nil: none is free
	Return([]byte)
}

// largeOutput is the buffer for a command that says much: one that the stream lends, or
// else one of the pool.
type largeOutput struct {
	on       bool
	lends    borrower // nil: nobody does, or not any more
	borrowed []byte
	pooled   *[]byte
}

func (l *largeOutput) get() []byte {
	if l.borrowed == nil && l.lends != nil {
		l.borrowed = l.lends.Borrow()
	}
	if l.borrowed != nil {
		return l.borrowed
	}
	if l.pooled == nil {
		l.pooled = largeOutputs.Get().(*[]byte)
	}
	return *l.pooled
}

// giveBack ends a loan.
func (l *largeOutput) giveBack() {
	if l.borrowed != nil {
		l.lends.Return(l.borrowed)
		l.borrowed = nil
	}
}

func (l *largeOutput) close() {
	l.giveBack()
	if l.pooled != nil {
		largeOutputs.Put(l.pooled)
	}
	l.on, l.pooled = false, nil
}

// copyFrom sends what f gives until it ends or stopOutput was called.
func (x *execution) copyFrom(f *os.File, t banger.FrameType) {
	small := make([]byte, banger.FrameHeader+smallOutput)
	var large largeOutput
	large.lends, _ = x.conn.(borrower)
	defer large.close()
	left := -1 // once stopped: what may still be taken
	for left != 0 {
		buf := small
		if large.on {
			buf = large.get()
		}
		n, err := f.Read(buf[banger.FrameHeader:])
		if n > 0 {
			if x.send(buf[:banger.FrameHeader+n], t) {
				large.borrowed = nil // the stream's again
			} else {
				large.giveBack()
				large.lends = nil
			}
		}
		switch {
		case !large.on && n == smallOutput:
			large.on = true
		case large.on && n < smallOutput:
			large.close()
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
