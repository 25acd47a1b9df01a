package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"banger/internal/vmm"
)

// convert writes the snapshot of a VM whose memory is a private mapping of the snapshot before. QEMU can write such
// memory only into the stream of a migration, from which each restore would have to read all of it. So a second QEMU
// takes the stream, into a file as its memory, and writes down what is left, as for any VM. It never runs the guest.
func (p *process) convert(ctx context.Context, dir string) error {
	memory, err := os.OpenFile(filepath.Join(dir, vmm.SnapshotRAM), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if err := memory.Truncate(int64(p.config.MemoryMiB) << 20); err != nil {
		memory.Close()
		return err
	}
	c, closeNICs, err := p.stillConfig()
	if err != nil {
		memory.Close()
		return err
	}
	defer closeNICs()
	still, err := p.driver.launch(c, p.version, memory, true, io.Discard)
	if err != nil {
		return fmt.Errorf("starting a second QEMU for the snapshot: %w", err)
	}
	defer func() {
		still.Kill()
		<-still.Done()
	}()
	if err := still.negotiate(ctx); err != nil {
		return err
	}
	if err := p.pour(ctx, still); err != nil {
		return err
	}
	return still.migrate(ctx, filepath.Join(dir, vmm.SnapshotState), true)
}

// pour moves the whole VM to another QEMU, which waits for it.
func (p *process) pour(ctx context.Context, to *process) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	defer w.Close()
	if err := to.openMigration(ctx, r, false); err != nil {
		return err
	}
	if err := to.monitor.execute(ctx, "migrate-incoming", map[string]any{"uri": "fd:state"}); err != nil {
		return err
	}
	r.Close() // so that each end sees when the other has gone
	if err := p.migrateTo(ctx, w, false, to.Done()); err != nil {
		return errors.Join(err, ctx.Err())
	}
	if err := to.monitor.awaitMigration(ctx); err != nil {
		return fmt.Errorf("moving the memory to its file: %w", err)
	}
	return nil
}

// stillConfig returns the configuration of a VM that has the devices of p's and never runs. Its taps are p's, from
// which a VM that does not run reads nothing; its sockets lead nowhere.
func (p *process) stillConfig() (c vmm.Config, done func(), err error) {
	c = p.config
	for _, f := range c.WrapFiles { // the wrapper of p has read them to the end
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return c, nil, err
		}
	}
	var opened []*os.File
	done = func() {
		for _, f := range opened {
			f.Close()
		}
	}
	c.NICs = append([]vmm.NIC(nil), c.NICs...)
	for i, n := range c.NICs {
		if n.Tap != nil {
			c.NICs[i].Tap = p.taps[i]
			continue
		}
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			done()
			return c, nil, os.NewSyscallError("socketpair", err)
		}
		near, far := os.NewFile(uintptr(fds[0]), "near"), os.NewFile(uintptr(fds[1]), "far")
		opened = append(opened, near, far)
		c.NICs[i].Socket = near
	}
	return c, done, nil
}

// keepTaps returns copies of the taps of c, which the caller closes after the start.
func keepTaps(c vmm.Config) (taps map[int]*os.File, err error) {
	taps = map[int]*os.File{}
	for i, n := range c.NICs {
		if n.Tap == nil {
			continue
		}
		fd, err := unix.FcntlInt(n.Tap.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			closeTaps(taps)
			return nil, os.NewSyscallError("fcntl", err)
		}
		taps[i] = os.NewFile(uintptr(fd), "tap")
	}
	return taps, nil
}

func closeTaps(taps map[int]*os.File) {
	for _, f := range taps {
		f.Close()
	}
}
