// Package logfile keeps a log in a few files of limited size, and reads it again as one text. It must not know what is
// logged.
package logfile

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/fsnotify/fsnotify"
	"gopkg.in/natefinch/lumberjack.v2"

	"banger"
	"banger/internal/text"
)

// A log has at most Files files of MaxSize MiB each.
const (
	MaxSize = 10
	Files   = 3
)

// Open returns a writer that appends to the log at path. The file gets mode 0600. When it is full it gets another name
// beside it, with the time, and the oldest file is removed. The caller closes the writer.
func Open(path string) io.WriteCloser {
	return &lumberjack.Logger{Filename: path, MaxSize: MaxSize, MaxBackups: Files - 1}
}

// files returns the files of the log at path, the oldest first. The names of the older ones contain the time.
func files(path string) ([]string, error) {
	ext := filepath.Ext(path)
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	prefix := strings.TrimSuffix(filepath.Base(path), ext) + "-"
	var list []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) && strings.HasSuffix(e.Name(), ext) {
			list = append(list, filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
	slices.Sort(list)
	return append(list, path), nil
}

// Read writes the last tail lines of the log at path to w, or all lines if tail is negative. With follow it then writes
// new lines until ctx ends, which is no error. A log without a file is empty.
func Read(ctx context.Context, path string, tail int, follow bool, w io.Writer) error {
	var changes *fsnotify.Watcher
	if follow { // before the first read, so no change is missed
		var err error
		if changes, err = fsnotify.NewWatcher(); err != nil {
			return err
		}
		defer changes.Close()
		if err := changes.Add(filepath.Dir(path)); err != nil {
			return err
		}
	}
	list, err := files(path)
	if err != nil {
		return err
	}
	last, err := copyAll(list, tail, w)
	if last != nil {
		defer func() { last.Close() }()
	}
	if err != nil || !follow {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-changes.Errors:
			return err
		case e := <-changes.Events:
			if e.Name != path {
				continue
			}
		}
		if last, err = more(path, last, w); err != nil {
			return err
		}
	}
}

// copyAll writes the last tail lines of the files to w. It returns the last file, open at its end, or nil if it does
// not exist. The caller closes the file.
func copyAll(list []string, tail int, w io.Writer) (last *os.File, err error) {
	var log []byte
	for _, name := range list {
		f, err := open(name)
		if err != nil {
			return nil, err
		}
		if f == nil {
			continue
		}
		part, err := io.ReadAll(f)
		if err != nil || name != list[len(list)-1] {
			f.Close()
		} else {
			last = f
		}
		if err != nil {
			return nil, err
		}
		log = append(log, part...)
	}
	_, err = w.Write(text.LastLines(log, tail))
	return last, err
}

// more writes what was added to the log after the position of last. It returns the file that the log has now.
func more(path string, last *os.File, w io.Writer) (*os.File, error) {
	if last != nil {
		if _, err := io.Copy(w, last); err != nil {
			return last, err
		}
	}
	f, err := open(path)
	if err != nil || f == nil {
		return last, err
	}
	if last != nil && sameFile(last, f) {
		f.Close()
		return last, nil
	}
	if last != nil {
		last.Close()
	}
	_, err = io.Copy(w, f)
	return f, err
}

func sameFile(a, b *os.File) bool {
	as, aerr := a.Stat()
	bs, berr := b.Stat()
	return aerr == nil && berr == nil && os.SameFile(as, bs)
}

// open opens a file of a log, or returns nil if it does not exist.
func open(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, banger.Errorf(banger.CodeInvalid, "cannot read the log %s: %w", name, err)
	}
	return f, nil
}
