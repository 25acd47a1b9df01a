// Package kernel knows where guest kernels come from and what a VM needs of a kernel: an
// uncompressed vmlinux, an initramfs with the agent and the few modules that the disks need, and
// all modules as a read-only ext4 disk. A kernel is one directory, published by a rename.
//
// It must not know which VMs use a kernel, nor how a VMM gets it.
package kernel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"

	"banger"
	"banger/internal/blob"
	"banger/internal/pin"
	"banger/internal/sparse"
)

// Store is a directory of kernels. Its methods may be called concurrently.
type Store struct {
	dir    string
	adding sync.Mutex // held during a pull or an import, which take long
	mu     sync.Mutex // held while a kernel is added or removed, or an initramfs is made
	pins   pin.Set    // of kernels, by name
}

var nameRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$`)

const tmpPrefix = ".tmp-"

// Open returns the store in dir. It creates the directory if necessary, and removes what an
// interrupted import left there.
func Open(dir string) (*Store, error) {
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.Chmod(dir, 0o755)); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		at := filepath.Join(dir, e.Name())
		switch {
		case strings.HasPrefix(e.Name(), tmpPrefix):
			err = errors.Join(err, os.RemoveAll(at))
		case e.IsDir():
			err = errors.Join(err, blob.RemoveHalves(at)) // of an initramfs
		}
	}
	if err != nil {
		return nil, err
	}
	return &Store{dir: dir}, nil
}

// List returns all kernels, the latest one first. That one is the default.
func (s *Store) List() ([]banger.Kernel, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var list []banger.Kernel
	for _, e := range entries {
		if !nameRE.MatchString(e.Name()) {
			continue
		}
		k, err := s.read(e.Name())
		if _, gone := os.Lstat(filepath.Join(s.dir, e.Name())); errors.Is(err, fs.ErrNotExist) &&
			errors.Is(gone, fs.ErrNotExist) {
			continue // it was just removed
		}
		if err != nil {
			return nil, err
		}
		list = append(list, k)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].AddedAt.After(list[j].AddedAt) })
	if len(list) > 0 {
		list[0].Default = true
	}
	return list, nil
}

func (s *Store) read(name string) (banger.Kernel, error) {
	var k banger.Kernel
	data, err := os.ReadFile(filepath.Join(s.dir, name, "kernel.json"))
	if err != nil {
		return k, fmt.Errorf("reading kernel %s: %w", name, err)
	}
	if err := json.Unmarshal(data, &k); err != nil {
		return k, fmt.Errorf("reading kernel %s: %w", name, err)
	}
	return k, nil
}

// Get returns the named kernel; "" means the default one. It returns an *Error of CodeNotFound if
// there is no such kernel.
func (s *Store) Get(name string) (banger.Kernel, error) {
	list, err := s.List()
	if err != nil {
		return banger.Kernel{}, err
	}
	for _, k := range list {
		if k.Name == name || name == "" && k.Default {
			return k, nil
		}
	}
	if name == "" {
		return banger.Kernel{}, banger.Errorf(banger.CodeNotFound, "no guest kernel is installed").
			WithHint("run: banger kernel pull")
	}
	return banger.Kernel{}, banger.Errorf(banger.CodeNotFound, "no kernel is called %q", name).
		WithHint("see: banger kernel ls")
}

// Ensure returns the named kernel. If name is "" and no kernel is installed, it pulls the
// distribution's.
func (s *Store) Ensure(ctx context.Context, name string, emit banger.Emit) (banger.Kernel, error) {
	k, err := s.Get(name)
	if err == nil || name != "" || banger.CodeOf(err) != banger.CodeNotFound {
		return k, err
	}
	k, pullErr := s.Pull(ctx, emit)
	if pullErr == nil {
		return k, nil
	}
	if ctx.Err() != nil {
		return banger.Kernel{}, pullErr
	}
	if k, err := s.ImportHost(ctx, emit); err == nil {
		return k, nil
	}
	return banger.Kernel{}, pullErr
}

// Pin protects a kernel from removal until release is called. by says who needs the kernel, as in
// "it is needed by the creation of ...". Pin returns an error of CodeNotFound if there is no such
// kernel.
func (s *Store) Pin(name, by string) (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.Get(name); err != nil {
		return nil, err
	}
	p := s.pins.Add(name, by)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.pins.Remove(p)
	}, nil
}

// Remove deletes the named kernel. If the kernel is in use, the error says who needs it. user
// returns a VM or a snapshot that uses a kernel, as banger.UserOf takes it, or "". It is called while the store is
// locked.
func (s *Store) Remove(name string, user func(name string) string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, err := s.Get(name)
	if err != nil {
		return err
	}
	if by := user(k.Name); by != "" {
		return banger.UsedError("kernel "+k.Name, by)
	}
	if by := s.pins.By(k.Name); by != "" {
		return banger.Errorf(banger.CodeConflict, "kernel %s is needed by %s", k.Name, by).
			WithHint("try again when that is done")
	}
	// The rename comes first: a crash then never leaves half a kernel in the list.
	dead := filepath.Join(s.dir, tmpPrefix+"rm-"+k.Name)
	if err := os.Rename(filepath.Join(s.dir, k.Name), dead); err != nil {
		return err
	}
	if err := blob.Sync(s.dir); err != nil { // otherwise the kernel could come back after a power cut
		return err
	}
	return os.RemoveAll(dead)
}

// Vmlinux returns the path of the kernel's uncompressed ELF image.
func (s *Store) Vmlinux(name string) string { return filepath.Join(s.dir, name, "vmlinux") }

// ModulesDisk returns the path of the ext4 image whose root has the content of
// /lib/modules/VERSION.
func (s *Store) ModulesDisk(name string) string { return filepath.Join(s.dir, name, "modules.ext4") }

// Import adds a kernel from an image file (vmlinux or bzImage) and its module directory
// (…/lib/modules/VERSION). If it fails, nothing is left.
func (s *Store) Import(ctx context.Context, name, image, modules, source string,
	emit banger.Emit) (banger.Kernel, error) {
	s.adding.Lock()
	defer s.adding.Unlock()
	return s.importLocked(ctx, name, image, modules, source, emit)
}

func (s *Store) importLocked(ctx context.Context, name, image, modules, source string,
	emit banger.Emit) (banger.Kernel, error) {
	if !nameRE.MatchString(name) {
		return banger.Kernel{}, banger.Errorf(banger.CodeInvalid, "%q is not a valid kernel name", name)
	}
	if _, err := s.read(name); err == nil {
		return banger.Kernel{}, banger.Errorf(banger.CodeConflict, "a kernel called %q is already installed", name).
			WithHint("remove it first: banger kernel rm %s", name)
	}
	for _, part := range []struct{ what, path string }{{"kernel image", image}, {"module directory", modules}} {
		if part.path == "" {
			return banger.Kernel{}, banger.Errorf(banger.CodeInvalid, "no %s is given", part.what).
				WithHint("see: banger kernel import --help")
		}
		if _, err := os.Stat(part.path); err != nil {
			return banger.Kernel{}, banger.Errorf(banger.CodeInvalid, "cannot read the %s: %w", part.what, err)
		}
	}
	tmp, err := os.MkdirTemp(s.dir, tmpPrefix+"*")
	if err != nil {
		return banger.Kernel{}, err
	}
	defer os.RemoveAll(tmp)
	emit(banger.Event{Stage: "kernel", Text: "extracting vmlinux of " + name})
	if err := extractVmlinux(image, filepath.Join(tmp, "vmlinux")); err != nil {
		return banger.Kernel{}, banger.Errorf(banger.CodeInvalid, "%s is not a kernel image banger can boot: %w", image, err)
	}
	emit(banger.Event{Stage: "kernel", Text: "packing the modules of " + name})
	if err := packModules(ctx, modules, tmp); err != nil {
		return banger.Kernel{}, fmt.Errorf("packing modules of %s: %w", name, err)
	}
	k := banger.Kernel{
		Name:    name,
		Version: filepath.Base(modules),
		Source:  source,
		AddedAt: time.Now().UTC(),
		Size:    diskUsage(tmp),
	}
	if err := blob.WriteJSON(filepath.Join(tmp, "kernel.json"), k); err != nil {
		return banger.Kernel{}, err
	}
	if err := publish(tmp, filepath.Join(s.dir, name)); err != nil {
		return banger.Kernel{}, err
	}
	emit(banger.Event{Stage: "kernel", Text: name, Done: true})
	return s.Get(name)
}

// ImportHost adds the kernel that this host runs. /boot must be readable.
func (s *Store) ImportHost(ctx context.Context, emit banger.Emit) (banger.Kernel, error) {
	var u syscall.Utsname
	if err := syscall.Uname(&u); err != nil {
		return banger.Kernel{}, err
	}
	release := utsString(u.Release[:])
	return s.Import(ctx, "host-"+release, "/boot/vmlinuz-"+release, "/lib/modules/"+release, "this host (/boot)", emit)
}

func utsString[T int8 | uint8](b []T) string {
	var out []byte
	for _, c := range b {
		if c == 0 {
			break
		}
		out = append(out, byte(c))
	}
	return string(out)
}

// settle makes everything in dir durable and readable for VMs, whatever the umask was.
func settle(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if e.IsDir() {
			err = errors.Join(os.Chmod(path, 0o755), settle(path))
		} else {
			err = errors.Join(os.Chmod(path, 0o644), blob.Sync(path))
		}
		if err != nil {
			return err
		}
	}
	return blob.Sync(dir)
}

// publish makes dir durable and visible under its final name.
func publish(tmp, final string) error {
	if err := settle(tmp); err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	if err := os.Rename(tmp, final); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return banger.Errorf(banger.CodeConflict, "%s exists already", filepath.Base(final))
		}
		return err
	}
	return blob.Sync(filepath.Dir(final))
}

// diskUsage returns the bytes that the files of dir occupy.
func diskUsage(dir string) int64 {
	var n int64
	filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			n += sparse.Allocated(info)
		}
		return nil
	})
	return n
}

// debianArch returns dpkg's name of this architecture.
func debianArch() string { return runtime.GOARCH } // the same for amd64 and arm64
