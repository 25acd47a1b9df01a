// Package secret keeps the secrets of a VM in its guest: files of a tmpfs, which lies on no disk and is in no image,
// and variables of the commands that want them. It must not know where values come from, nor who starts a command.
package secret

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/agent/command"
	"banger/internal/agent/console"
)

// maxValue bounds what is read of a file, which root in the guest may have replaced.
const maxValue = 64 << 10

// Store is the secrets of one guest. Its methods may be called at the same time.
type Store struct {
	path  string
	mount func(path string) error // mounts the file system; nil in a test, where the directory stands for it

	mu   sync.Mutex
	dir  *os.File // the top of the file system; nil before the first secret
	root *os.Root // the same
}

// New returns a store without secrets, whose files will be in the directory path. mount mounts their file system there.
func New(path string, mount func(path string) error) *Store { return &Store{path: path, mount: mount} }

// Set gives the guest values by name, in place of earlier ones. The files belong to user, as a command names it, and to
// root if there is no such user.
func (s *Store) Set(values map[string][]byte, user string) error {
	if len(values) == 0 {
		return nil
	}
	owner, err := command.LookUp(user)
	if err != nil {
		console.Warn(fmt.Errorf("the secrets belong to root: %w", err))
		owner = command.User{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.open(); err != nil {
		return banger.Errorf(banger.CodeGuest, "there is no place for secrets at %s: %w", s.path, banger.Cause(err))
	}
	for name, value := range values {
		if err := s.write(name, value, owner); err != nil {
			return banger.Errorf(banger.CodeGuest, "the secret %.64q cannot be written: %w", name, banger.Cause(err))
		}
	}
	return nil
}

// open mounts the file system with the first secret. s.mu is held.
func (s *Store) open() error {
	if s.dir != nil {
		return s.show()
	}
	err := os.MkdirAll(s.path, 0o755)
	if err == nil && s.mount != nil {
		err = s.mount(s.path)
	}
	if err != nil {
		return err
	}
	dir, err := os.Open(s.path)
	if err != nil {
		return err
	}
	if s.root, err = os.OpenRoot(s.path); err != nil {
		dir.Close()
		return err
	}
	s.dir = dir
	return nil
}

// show mounts the file system again where something else, such as an image's init, has hidden it. s.mu is held, and
// there are secrets.
func (s *Store) show() error {
	if s.mount == nil {
		return nil
	}
	ours, err := s.dir.Stat()
	if err != nil {
		return err
	}
	if now, err := os.Stat(s.path); err == nil && os.SameFile(now, ours) {
		return nil
	}
	if err := os.MkdirAll(s.path, 0o755); err != nil {
		return err
	}
	return unix.Mount(fmt.Sprintf("/proc/self/fd/%d", s.dir.Fd()), s.path, "", unix.MS_BIND, "")
}

// write replaces a file at once.
func (s *Store) write(name string, value []byte, owner command.User) (err error) {
	if err := banger.CheckSecrets(name); err != nil {
		return err
	}
	half := "." + name
	if err := s.root.RemoveAll(half); err != nil {
		return err
	}
	f, err := s.root.OpenFile(half, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return err
	}
	if os.Geteuid() == 0 { // otherwise a test runs as an ordinary user
		err = f.Chown(int(owner.UID), int(owner.GID))
	}
	if err == nil {
		err = f.Chmod(0o400) // whatever the umask
	}
	if err == nil {
		_, err = f.Write(value)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		defer s.wipe(name)()
		err = s.root.Rename(half, name)
	}
	if err != nil {
		s.root.RemoveAll(half)
	}
	return err
}

// wipe returns a function that overwrites what a file has now, for the time when its name is gone: the kernel gives
// pages back as they are. It does nothing where root in the guest has put something else.
func (s *Store) wipe(name string) func() {
	f, err := s.root.OpenFile(name, os.O_WRONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return func() {}
	}
	return func() {
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
			f.Write(make([]byte, min(info.Size(), maxValue)))
		}
		f.Close()
	}
}

// Remove removes secrets, if they are there. Commands that run keep what they have read.
func (s *Store) Remove(names []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		if err := banger.CheckSecrets(name); err != nil {
			return err
		}
		if s.root == nil {
			continue
		}
		defer s.wipe(name)()
		if err := s.root.RemoveAll(name); err != nil {
			return banger.Errorf(banger.CodeGuest, "the secret %s cannot be removed: %w", name, banger.Cause(err))
		}
	}
	return nil
}

// Environment returns env with a variable for each of the named secrets, in place of one of that name. A variable lacks
// the line end with which a file may end.
func (s *Store) Environment(env, names []string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dir != nil {
		if err := s.show(); err != nil {
			console.Warn(fmt.Errorf("showing the secrets at %s: %w", s.path, err))
		}
	}
	if len(names) == 0 {
		return env, nil
	}
	with := slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains(names, name)
	})
	for _, name := range names {
		value, err := s.read(name)
		if err != nil {
			return nil, err
		}
		with = append(with, name+"="+strings.TrimSuffix(string(value), "\n"))
	}
	return with, nil
}

// read returns a value that can be that of a variable.
func (s *Store) read(name string) ([]byte, error) {
	absent := banger.Errorf(banger.CodeConflict, "this VM does not have the secret %.64s, which the command wants", name).
		WithHint("give it again: banger secret set VM %.64s", name)
	if banger.CheckSecrets(name) != nil || s.root == nil {
		return nil, absent
	}
	f, err := s.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0) // no pipe may block the agent
	if errors.Is(err, fs.ErrNotExist) {
		return nil, absent
	}
	if err != nil {
		return nil, banger.Errorf(banger.CodeCannotRun, "the secret %s cannot be read: %w", name, banger.Cause(err))
	}
	defer f.Close()
	value, err := io.ReadAll(io.LimitReader(f, maxValue+1))
	switch {
	case err != nil:
		return nil, banger.Errorf(banger.CodeCannotRun, "the secret %s cannot be read: %w", name, banger.Cause(err))
	case len(value) > maxValue || slices.Contains(value, 0):
		return nil, banger.Errorf(banger.CodeCannotRun, "the secret %s is too long or has a NUL byte, so it is no variable",
			name).WithHint("read the file: %s/%s", banger.SecretsDir, name)
	}
	return value, nil
}
