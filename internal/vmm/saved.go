package vmm

import (
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"banger/internal/untrusted"
)

// Saved are the open files of a snapshot.
type Saved struct{ Manifest, State, Memory *os.File }

// savedFiles are the names of the files of a Saved, in their order.
var savedFiles = [...]string{manifestFile, SnapshotState, SnapshotRAM}

// SavedFiles is the number of the files of a Saved.
const SavedFiles = len(savedFiles)

// SavedNames returns the names of the files of a snapshot in its directory.
func SavedNames() []string { return slices.Clone(savedFiles[:]) }

// Files returns the files in a fixed order.
func (s *Saved) Files() []*os.File { return []*os.File{s.Manifest, s.State, s.Memory} }

// SavedAt returns the files that this process has as descriptors from first on, in the order of Files.
func SavedAt(first int) *Saved {
	at := func(i int) *os.File { return os.NewFile(uintptr(first+i), savedFiles[i]) }
	return &Saved{at(0), at(1), at(2)}
}

// OpenSaved opens the files of the snapshot in dir, which no other user can change, for reading. The files may have
// other names, in jails. The caller closes them.
func OpenSaved(dir string) (*Saved, error) {
	s := &Saved{}
	for i, to := range []**os.File{&s.Manifest, &s.State, &s.Memory} {
		f, err := OpenOwn(filepath.Join(dir, savedFiles[i]), os.O_RDONLY)
		if err != nil {
			s.Close()
			return nil, err
		}
		*to = f
	}
	return s, nil
}

// Close closes the files.
func (s *Saved) Close() {
	for _, f := range s.Files() {
		f.Close() // does nothing if f is nil
	}
}

// ManifestOf reads the manifest of the snapshot that c goes on from.
func ManifestOf(c Config) (Manifest, error) {
	if c.From == nil {
		return ReadManifest(c.Restore)
	}
	data, err := io.ReadAll(io.NewSectionReader(c.From.Manifest, 0, maxManifest))
	return parseManifest(c.Restore, data, err)
}

// StateOf returns the state of the devices that c goes on from. The caller closes it.
func StateOf(c Config) (*os.File, error) {
	if c.From != nil {
		return again(c.From.State)
	}
	return untrusted.Open(filepath.Join(c.Restore, SnapshotState), os.O_RDONLY, 0)
}

// MemoryOf returns the memory that c goes on from. The caller closes it. flag is os.O_RDONLY, or os.O_RDWR for a VMM
// that opens the file for writing, though it does not write. The memory of a shared snapshot was opened as is needed.
func MemoryOf(c Config, flag int) (*os.File, error) {
	if c.From != nil {
		return again(c.From.Memory)
	}
	return untrusted.Open(filepath.Join(c.Restore, SnapshotRAM), flag, 0)
}

// again returns another descriptor of f.
func again(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
