package private

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Owner is what a lock file says about the process that holds the lock, or held it last.
type Owner struct {
	PID   int    `json:"pid"`
	State string `json:"state"` // directory
	Run   string `json:"run"`   // directory
}

// ErrLocked means that another process holds a lock.
var ErrLocked = errors.New("another process holds the lock")

// lockSize is the maximum number of bytes to read of a lock file, which contains two paths.
const lockSize = 16 << 10

// Lock is a lock file that this process holds.
type Lock struct{ f *os.File }

// Take takes the lock file called name in dir, which Check must accept. It waits for another process to release the
// lock, but not longer than wait. With the lock, or with ErrLocked, it returns the content of the file, or a zero
// Owner if it has none.
func Take(dir, name string, wait time.Duration) (*Lock, Owner, error) {
	for end := time.Now().Add(wait); ; {
		l, owner, err := take(dir, name, time.Until(end))
		if err != nil {
			return nil, owner, err
		}
		here, err := os.Lstat(l.f.Name())
		if held, herr := l.f.Stat(); err == nil && herr == nil && os.SameFile(here, held) {
			return l, owner, nil
		}
		l.Release() // the file was removed meanwhile
	}
}

func take(dir, name string, wait time.Duration) (*Lock, Owner, error) {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, Owner{}, err
	}
	if err := f.Chmod(0o600); err != nil {
		f.Close()
		return nil, Owner{}, err
	}
	locked, givenUp := make(chan error), make(chan struct{})
	go func() { // ends when the lock is free, or with the process
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		select {
		case locked <- err:
		case <-givenUp:
			f.Close() // also releases the lock
		}
	}()
	select {
	case err = <-locked:
	case <-time.After(wait):
		err = ErrLocked
		defer close(givenUp)
	}
	owner := ReadOwner(f)
	if err != nil {
		if err != ErrLocked { // after ErrLocked the goroutine closes the file
			f.Close()
		}
		return nil, owner, err
	}
	return &Lock{f}, owner, nil
}

// ReadOwner returns what a lock file says, or a zero Owner if it says nothing.
func ReadOwner(f io.ReaderAt) (owner Owner) {
	// Decode reads one value and ignores what may remain of a longer, older one.
	if json.NewDecoder(io.NewSectionReader(f, 0, lockSize)).Decode(&owner) != nil {
		return Owner{}
	}
	return owner
}

// Write writes the owner into the file.
func (l *Lock) Write(o Owner) error {
	data, err := json.Marshal(o)
	if err != nil {
		return err
	}
	data = append(data, '\n')
	if _, err := l.f.WriteAt(data, 0); err != nil {
		return err
	}
	return l.f.Truncate(int64(len(data)))
}

// Remove removes the file and releases the lock.
func (l *Lock) Remove() error { return errors.Join(os.Remove(l.f.Name()), l.f.Close()) }

// Release releases the lock. The file stays, because it names the last owner.
func (l *Lock) Release() error { return l.f.Close() }
