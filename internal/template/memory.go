package template

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/sparse"
)

// held is how long the memory of a template is held after its last use.
const held = 5 * time.Minute

// memory is a copy of a template's memory that nobody can change, not even a VMM that an attacker has taken over. VMs
// share its pages.
type memory struct {
	file  *os.File
	timer *time.Timer // ends the holding
}

// memory returns a new descriptor of the sealed memory of a template, whose file is from.
func (s *Store) memory(id string, from *os.File) (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.sealed[id]
	if m == nil {
		file, err := seal(from)
		if err != nil {
			return nil, err
		}
		m = &memory{file: file}
		m.timer = time.AfterFunc(held, func() { s.release(id, m) })
		s.sealed[id] = m
	}
	m.timer.Reset(held)
	// Each descriptor has a position of its own.
	return os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", m.file.Fd()), os.O_RDWR, 0)
}

// release is the end of a memory's holding.
func (s *Store) release(id string, m *memory) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sealed[id] == m {
		s.forget(id)
	}
}

// forget gives up the memory of a template. The caller holds mu.
func (s *Store) forget(id string) {
	if m := s.sealed[id]; m != nil {
		m.timer.Stop()
		m.file.Close()
		delete(s.sealed, id)
	}
}

// seal copies a file to memory and seals it for good (memfd_create(2), fcntl(2) "File Sealing").
func seal(from *os.File) (*os.File, error) {
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("template", flags|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate("template", flags)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "a template's memory")
	err = sparse.Copy(context.Background(), f, from)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS,
			unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("sealing the memory: %w", err)
	}
	return f, nil
}
