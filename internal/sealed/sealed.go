// Package sealed keeps copies of guests' memories that nobody can change, not even a VMM that an attacker has taken
// over. VMs share their pages. The package must not know whose memory it is.
package sealed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/sparse"
	"banger/internal/vmm"
)

// held is how long a memory is held after its last use.
const held = 5 * time.Minute

// Memories are the sealed memories of one daemon. The zero value has none. Its methods may be called at the same
// time.
type Memories struct {
	mu     sync.Mutex
	sealed map[string]*memory // by ids
}

type memory struct {
	file  *os.File
	timer *time.Timer // ends the holding
}

// Open returns a new descriptor of the sealed copy of from, the memory with an id. The caller closes both. It can be
// opened for writing, but nobody can write to it.
func (s *Memories) Open(id string, from *os.File) (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sealed == nil {
		s.sealed = map[string]*memory{}
	}
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

// OpenSaved opens what a VMM has saved in dir, whose memory has the id, for VMs that share it. With seal, the memory
// can be opened for writing, but nobody can write to it. The caller closes it.
func (s *Memories) OpenSaved(id, dir string, seal bool) (*vmm.Saved, error) {
	saved, err := vmm.OpenSaved(dir)
	if err != nil || !seal {
		return saved, err
	}
	memory, err := s.Open(id, saved.Memory)
	if err != nil {
		saved.Close()
		return nil, err
	}
	saved.Memory.Close()
	saved.Memory = memory
	return saved, nil
}

// release is the end of a memory's holding.
func (s *Memories) release(id string, m *memory) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sealed[id] == m {
		s.forget(id)
	}
}

// Forget gives up a memory. VMs that have it keep it.
func (s *Memories) Forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget(id)
}

// Close gives up all memories.
func (s *Memories) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.sealed {
		s.forget(id)
	}
}

// forget gives up a memory. The caller holds mu.
func (s *Memories) forget(id string) {
	if m := s.sealed[id]; m != nil {
		m.timer.Stop()
		m.file.Close()
		delete(s.sealed, id)
	}
}

// seal copies a file to memory and seals it for good (memfd_create(2), fcntl(2) "File Sealing").
func seal(from *os.File) (*os.File, error) {
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("sealed", flags|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate("sealed", flags)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "a sealed memory")
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
