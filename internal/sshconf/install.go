package sshconf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"banger/internal/blob"
)

// maxUserConfig is more than the size in bytes of any configuration that a person wrote.
const maxUserConfig = 1 << 20

// Install is the line in a user's configuration that includes ours.
type Install struct {
	User   string // path of the user's configuration
	Ours   string // path of the configuration to include
	Record string // path of our record that the line was added; absent without the line
}

// record is what is needed to undo an installation.
type record struct {
	MadeFile bool `json:"made_file"` // there was no configuration before
	MadeDir  bool `json:"made_dir"`  // its directory did not exist either
}

// Installed reports whether Add was called and Remove was not.
func (i Install) Installed() bool {
	_, err := os.Lstat(i.Record)
	return err == nil
}

// line returns the one line that is added.
func (i Install) line() ([]byte, error) {
	path, err := quotePath(i.Ours)
	return []byte("Include " + path + "\n"), err
}

// Add adds the line at the top of the user's configuration, where no earlier Host can take precedence. Everything
// else stays unchanged, including owner and mode. Add changes nothing if the line is already there.
func (i Install) Add() error {
	line, err := i.line()
	if err != nil {
		return err
	}
	f, err := openConfig(i.User)
	if err != nil {
		return err
	}
	removeHalves(filepath.Dir(f.path))
	if hasLine(f.content, line) {
		if !i.Installed() {
			return i.note(record{})
		}
		return nil
	}
	r := record{MadeFile: f.stat == nil, MadeDir: f.newDir}
	if f.newDir {
		if err := os.Mkdir(filepath.Dir(f.path), 0o700); err != nil {
			return err
		}
	}
	err = i.note(r) // before the change, so nothing of ours is ever unrecorded
	if err == nil {
		err = f.replace(append(append([]byte{}, line...), f.content...))
	}
	if err != nil {
		os.Remove(i.Record)
		if f.newDir {
			os.Remove(filepath.Dir(f.path))
		}
	}
	return err
}

// Remove removes the line. It also removes the file and directory that Add has made, if they have no other content.
func (i Install) Remove() error {
	line, err := i.line()
	if err != nil {
		return err
	}
	var r record
	if data, err := os.ReadFile(i.Record); err == nil {
		if err := json.Unmarshal(data, &r); err != nil {
			return fmt.Errorf("our note in %s: %w", i.Record, err)
		}
	}
	f, err := openConfig(i.User)
	if err != nil {
		return err
	}
	removeHalves(filepath.Dir(f.path))
	rest, found := withoutLine(f.content, line)
	switch {
	case !found:
	case len(rest) == 0 && r.MadeFile:
		if err := os.Remove(f.path); err != nil {
			return err
		}
		dir := filepath.Dir(f.path)
		if r.MadeDir && os.Remove(dir) == nil { // it stays if it has other content
			dir = filepath.Dir(dir)
		}
		if err := blob.Sync(dir); err != nil { // otherwise a power cut could bring it back
			return err
		}
	default:
		if err := f.replace(rest); err != nil {
			return err
		}
	}
	if err := os.Remove(i.Record); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (i Install) note(r record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return WriteFile(i.Record, append(data, '\n'))
}

func hasLine(content, line []byte) bool {
	_, found := withoutLine(content, line)
	return found
}

// withoutLine returns content without the first such line, and whether there was one.
func withoutLine(content, line []byte) ([]byte, bool) {
	for at := 0; ; {
		n := bytes.Index(content[at:], line)
		if n < 0 {
			return content, false
		}
		if at += n; at == 0 || content[at-1] == '\n' {
			return append(append([]byte{}, content[:at]...), content[at+len(line):]...), true
		}
		at++
	}
}

// configFile is a user's configuration as it was found, before any change.
type configFile struct {
	path    string // after all symlinks
	content []byte
	stat    *syscall.Stat_t // nil if it does not exist
	newDir  bool            // its directory must be made
}

// openConfig reads the configuration and checks that it can be replaced.
func openConfig(name string) (*configFile, error) {
	path, err := filepath.EvalSymlinks(name)
	if errors.Is(err, fs.ErrNotExist) {
		return absentConfig(name)
	}
	if err != nil {
		return nil, err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok || !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not an ordinary file", path)
	case st.Nlink > 1:
		return nil, fmt.Errorf("%s has other names (hard links), which replacing it would cut off", path)
	case info.Size() > maxUserConfig:
		return nil, fmt.Errorf("%s has %d bytes, more than a configuration that a person wrote", path, info.Size())
	case unix.Access(path, unix.W_OK) != nil || unix.Access(filepath.Dir(path), unix.W_OK) != nil:
		return nil, fmt.Errorf("%s, or its directory, cannot be written", path)
	case os.Geteuid() != 0 && int(st.Uid) != os.Geteuid():
		return nil, fmt.Errorf("%s belongs to another user, which replacing it would change", path)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if bytes.IndexByte(content, 0) >= 0 {
		return nil, fmt.Errorf("%s holds a NUL byte, so it is not text", path)
	}
	return &configFile{path: path, content: content, stat: st}, nil
}

// absentConfig handles a configuration that does not exist. It checks that its directory can take one.
func absentConfig(name string) (*configFile, error) {
	if _, err := os.Lstat(name); err == nil {
		return nil, fmt.Errorf("%s is a link that leads nowhere", name)
	}
	f := &configFile{path: name}
	dir := filepath.Dir(name)
	if info, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		f.newDir, dir = true, filepath.Dir(dir)
	} else if err != nil || !info.IsDir() {
		return nil, fmt.Errorf("%s is not a directory", dir)
	}
	if unix.Access(dir, unix.W_OK) != nil {
		return nil, fmt.Errorf("%s cannot be written", dir)
	}
	return f, nil
}

// replace changes only the content of the file.
func (f *configFile) replace(content []byte) error {
	mode := fs.FileMode(0o600)
	if f.stat != nil {
		mode = fs.FileMode(f.stat.Mode & 0o777)
	}
	temp, err := writeTemp(f.path, content, mode)
	if err != nil {
		return err
	}
	defer os.Remove(temp) // after the rename it no longer exists
	if f.stat != nil {
		if err := os.Chown(temp, int(f.stat.Uid), int(f.stat.Gid)); err != nil {
			return fmt.Errorf("the owner of %s cannot be kept: %w", f.path, err)
		}
		if have, err := os.ReadFile(f.path); err != nil || !bytes.Equal(have, f.content) {
			return fmt.Errorf("%s was changed by somebody else meanwhile", f.path)
		}
	}
	return moveTo(temp, f.path)
}
