package server

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/shim"
	"banger/internal/vmm"
)

// suspendTime is the maximum time of a suspension. It allows for 64 GiB of memory on a slow disk.
const suspendTime = 10 * time.Minute

// suspend writes the VM to its directory and ends the VMM. It does not depend on the daemon, which may die meanwhile:
// when it returns, there is a whole snapshot and no VMM, or the VM goes on and there is no snapshot. Connections that
// come wait in the sockets of the VM, which it returns.
func (s *server) suspend() ([]*os.File, error) {
	s.suspending.Lock() // a daemon that has just started asks again
	defer s.suspending.Unlock()
	if s.suspended.Load() {
		return s.waiting.files, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), suspendTime)
	defer cancel()
	taker, ok := s.proc.(vmm.Snapshotter)
	if !ok {
		return nil, errors.New("its VMM cannot write a VM down")
	}
	if s.access != nil {
		if err := s.access.Hold(); err != nil {
			return nil, err
		}
	}
	if err := s.freeze(ctx, taker); err != nil {
		if s.access != nil {
			s.access.GoOn()
		}
		return nil, err
	}
	if s.access != nil {
		s.waiting.listeners, s.waiting.files = s.access.Leave()
	}
	s.suspended.Store(true)
	err := s.proc.Kill()
	<-s.settled
	return s.waiting.files, err
}

// freeze freezes the commands of the VM and writes it down. If that fails, the commands go on.
func (s *server) freeze(ctx context.Context, taker vmm.Snapshotter) error {
	if _, err := s.agent().Suspend(ctx); err != nil {
		return err
	}
	err := s.writeDown(ctx, taker)
	if err != nil {
		if _, terr := s.agent().Thaw(ctx); terr != nil {
			s.log.Warn("the commands of the VM stay frozen", "err", terr)
		}
	}
	return err
}

func (s *server) writeDown(ctx context.Context, taker vmm.Snapshotter) error {
	if err := s.proc.Pause(ctx); err != nil {
		return err
	}
	err := s.recorder.hold()
	if err == nil {
		err = taker.Snapshot(ctx, ".")
	}
	if err == nil {
		return nil
	}
	s.recorder.goOn()
	if isFull(".") {
		err = banger.Errorf(banger.CodeDisk, "the disk is full: %w", err)
	}
	return errors.Join(err, s.resume(ctx))
}

// isFull reports whether the file system of dir has no room. A VMM does not say why it could not write.
func isFull(dir string) bool {
	const least = 1 << 20
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Bavail*uint64(st.Bsize) < least
}

// sleeping makes a VM one that can be written to its directory. If it goes on from a snapshot there, that is used up
// before any guest code runs, because the VM then changes its disk.
func sleeping(c vmm.Config) vmm.Config {
	c.Save = "."
	if c.Shared {
		c.From = vmm.SavedAt(firstSaved(c))
	}
	if c.Restore != "" && !c.Shared {
		c.Restore = "."
		c.Resuming = func() (func(), error) { return vmm.UseSnapshot(".") }
	}
	return c
}

// failed is the answer to a call that failed.
func failed(st shim.Status, err error) shim.Status {
	if err != nil {
		st.Error, st.Code = err.Error(), banger.CodeOf(err)
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
			st.Code = banger.CodeDisk
		}
	}
	return st
}
