package archive

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// queue is a kernel queue for asynchronous writes (io_setup(2), linux/aio_abi.h). The zero value is closed.
type queue struct{ context uintptr }

// iocb is a request. It is little-endian, as are all machines on which banger runs.
type iocb struct {
	data   uint64    // returned in the event
	_      [2]uint32 // key, flags
	opcode uint16
	_      int16 // priority
	fd     uint32
	buf    uint64
	length uint64
	offset int64
	_      [2]uint64 // flags, an eventfd
}

type ioEvent struct {
	data, request uint64
	result        int64 // number of bytes, or the negative number of an error
	_             int64
}

const commandWrite = 1 // IOCB_CMD_PWRITE

// open makes a queue for up to writes writes at a time.
func (q *queue) open(writes int) error {
	_, _, errno := unix.Syscall(unix.SYS_IO_SETUP, uintptr(writes), uintptr(unsafe.Pointer(&q.context)), 0)
	return errnoErr(errno)
}

// write starts to write b. b must not be Go's memory, and must not change until the write has ended. wait returns
// the same id.
func (q *queue) write(id uint64, fd int, b []byte, at int64) error {
	request := &iocb{data: id, opcode: commandWrite, fd: uint32(fd), buf: uint64(uintptr(unsafe.Pointer(&b[0]))),
		length: uint64(len(b)), offset: at}
	list := &request
	for {
		_, _, errno := unix.Syscall(unix.SYS_IO_SUBMIT, q.context, 1, uintptr(unsafe.Pointer(list)))
		if errno != unix.EINTR {
			return errnoErr(errno)
		}
	}
}

// wait waits for the end of one write and returns its id and the number of bytes written.
func (q *queue) wait() (id uint64, n int, err error) {
	var event ioEvent
	for {
		_, _, errno := unix.Syscall6(unix.SYS_IO_GETEVENTS, q.context, 1, 1, uintptr(unsafe.Pointer(&event)), 0, 0)
		switch {
		case errno == unix.EINTR:
			continue
		case errno != 0:
			return 0, 0, errno
		case event.result < 0:
			return event.data, 0, unix.Errno(-event.result)
		}
		return event.data, int(event.result), nil
	}
}

// close waits for the end of all writes (io_destroy(2)).
func (q *queue) close() {
	if q.context != 0 {
		unix.Syscall(unix.SYS_IO_DESTROY, q.context, 0, 0)
		q.context = 0
	}
}

func errnoErr(errno unix.Errno) error {
	if errno != 0 {
		return errno
	}
	return nil
}
