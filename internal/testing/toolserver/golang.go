package toolserver

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Go makes a directory that a web server can serve in place of dl.google.com/go: the Go at goroot as version, as far as
// it compiles and tests programs. The build cache comes with it, in its directory cache.
func Go(goroot, cache, version, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	name := filepath.Join(dir, "go"+version+".linux-amd64.tar.gz")
	sum, err := pack(name, func(w *tar.Writer) error {
		return errors.Join(copyTree(w, goroot, "go", needless), copyTree(w, cache, "go/cache", nil))
	})
	if err != nil {
		return err
	}
	return os.WriteFile(name+".sha256", []byte(sum), 0o644)
}

// needless reports whether no program needs a file or directory of a Go to be compiled. That is most of it.
func needless(rel string) bool {
	top, _, _ := strings.Cut(rel, "/")
	return rel == "src/cmd" || top == "test" || top == "api" || top == "doc" || filepath.Base(rel) == "testdata" ||
		strings.HasSuffix(rel, "_test.go")
}

// copyTree copies the regular files below root to a tar, below to, without those that leave names.
func copyTree(w *tar.Writer, root, to string, leave func(rel string) bool) error {
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return err
	}
	return filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		switch {
		case err != nil:
			return err
		case leave != nil && leave(rel) && d.IsDir():
			return filepath.SkipDir
		case leave != nil && leave(rel) || !d.Type().IsRegular():
			return nil
		}
		return addFile(w, name, filepath.Join(to, rel))
	})
}

// addFile copies a file to a tar.
func addFile(w *tar.Writer, name, to string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: to, Mode: int64(info.Mode().Perm()), Size: info.Size()}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}
