package bundle

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"banger"
	"banger/internal/recipe"
)

// epoch is the time of all files of a layer, so that a recipe always makes the same layer.
var epoch = time.Unix(499162500, 0)

// Fetch fetches all that a recipe names and that the store does not have.
func (s Store) Fetch(ctx context.Context, r recipe.Recipe, emit banger.Emit) error {
	return s.each(r, func(f pinned, _ string) error {
		file, err := s.open(ctx, f, emit)
		if err == nil {
			file.Close()
		}
		return err
	})
}

// each calls do for each file of a recipe, with the path of what is in it.
func (s Store) each(r recipe.Recipe, do func(f pinned, path string) error) error {
	for _, p := range r.Packages {
		f, err := ofPackage(p, s.NPM)
		if err == nil {
			err = do(f, p.Path)
		}
		if err != nil {
			return err
		}
	}
	for _, a := range r.Archives {
		f, err := ofArchive(a)
		if err == nil {
			err = do(f, a.Path)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Layer writes the tar of a layer with everything of a recipe: its packages and archives below root, and its commands
// as links in /usr/local/bin. It fetches what the store does not have.
func (s Store) Layer(ctx context.Context, r recipe.Recipe, root string, w io.Writer, emit banger.Emit) error {
	l := &layer{out: tar.NewWriter(w), made: map[string]bool{}, programs: map[string]bool{}}
	root = strings.TrimPrefix(root, "/")
	for _, file := range r.Bin {
		l.programs[path.Join(root, file)] = true
	}
	err := s.each(r, func(f pinned, at string) error { return s.add(ctx, l, f, path.Join(root, at), emit) })
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(r.Bin)) {
		if err := l.link("usr/local/bin/"+name, "/"+path.Join(root, r.Bin[name])); err != nil {
			return err
		}
	}
	return l.out.Close()
}

func (s Store) add(ctx context.Context, l *layer, f pinned, dir string, emit banger.Emit) error {
	file, err := s.open(ctx, f, emit)
	if err != nil {
		return err
	}
	defer file.Close()
	emit(banger.Event{Stage: "unpack", Text: "unpack " + f.what})
	if err := l.unpack(ctx, file, dir); err != nil {
		var known *banger.Error
		if errors.As(err, &known) || ctx.Err() != nil {
			return err
		}
		return banger.Errorf(banger.CodeBadImage, "cannot unpack %s: %w", f.what, banger.Cause(err))
	}
	return nil
}

// Files calls do for each regular file of a package, a gzipped tar that it reads from the start.
func Files(pack *os.File, do func(h *tar.Header, in io.Reader) error) error {
	if _, err := pack.Seek(0, io.SeekStart); err != nil {
		return err
	}
	zipped, err := gzip.NewReader(pack)
	if err != nil {
		return err
	}
	for in := tar.NewReader(zipped); ; {
		h, err := in.Next()
		if err == io.EOF {
			return nil
		}
		if err == nil && h.Typeflag == tar.TypeReg {
			err = do(h, in)
		}
		if err != nil {
			return err
		}
	}
}

// CopyFile writes one file of a package as a program called to in another tar.
func CopyFile(w *tar.Writer, pack *os.File, from, to string) error {
	found := false
	err := Files(pack, func(h *tar.Header, in io.Reader) error {
		if found || h.Name != from {
			return nil
		}
		found = true
		if err := w.WriteHeader(&tar.Header{Name: to, Mode: 0o755, Size: h.Size, ModTime: epoch}); err != nil {
			return err
		}
		_, err := io.Copy(w, in)
		return err
	})
	if err == nil && !found {
		err = banger.Errorf(banger.CodeBadImage, "the package %s has no file %s", pack.Name(), from)
	}
	return err
}

// layer writes one tar.
type layer struct {
	out      *tar.Writer
	made     map[string]bool // directories and files that are in the tar
	programs map[string]bool // files that can be run, whatever their modes
	entries  int
	bytes    int64
}

// unpack adds the regular files of a gzipped tar below dir. As npm does, it leaves out the top directory of each name,
// and all that is neither a file nor a directory.
func (l *layer) unpack(ctx context.Context, file *os.File, dir string) error {
	return Files(file, func(h *tar.Header, in io.Reader) error {
		_, name, ok := strings.Cut(path.Clean(strings.TrimPrefix(h.Name, "/")), "/")
		if !ok {
			return nil
		}
		if strings.HasPrefix(path.Clean(h.Name), "..") {
			return errors.New("a name in it leads out of it")
		}
		return l.file(ctx, path.Join(dir, name), h, in)
	})
}

func (l *layer) file(ctx context.Context, name string, h *tar.Header, in io.Reader) error {
	l.entries++
	l.bytes += h.Size
	if l.entries > maxEntries || l.bytes > maxUnpacked {
		return errors.New("it has too much in it")
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := l.directories(path.Dir(name)); err != nil {
		return err
	}
	mode := int64(0o644)
	if h.Mode&0o111 != 0 || l.programs[name] {
		mode = 0o755
	}
	err := l.out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: h.Size, ModTime: epoch})
	if err != nil {
		return err
	}
	l.made[name] = true
	_, err = io.Copy(l.out, in)
	return err
}

// directories adds the directory name and those above it.
func (l *layer) directories(name string) error {
	if name == "." || l.made[name] {
		return nil
	}
	if err := l.directories(path.Dir(name)); err != nil {
		return err
	}
	l.made[name] = true
	if standard[name] {
		return nil
	}
	return l.out.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, ModTime: epoch})
}

// standard are directories that images have, and that keep their modes and owners.
var standard = map[string]bool{"usr": true, "usr/local": true, "usr/local/bin": true, "opt": true}

func (l *layer) link(name, target string) error {
	if !l.made[strings.TrimPrefix(target, "/")] {
		return banger.Errorf(banger.CodeInvalid, "the recipe has the command %s at %s, but no package has that file",
			path.Base(name), target)
	}
	return l.out.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777,
		ModTime: epoch})
}
