package main

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/Microsoft/hcsshim/ext4/tar2ext4"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"banger/internal/inflate"
)

// way is one way to make an ext4 file of a layout. It works in dir, which is empty.
type way struct {
	convert func(layout, dir string) error
	needs   string // a program
}

var ways = map[string]way{
	"ours":     {ours, ""},
	"registry": {pulled, "docker-registry"},
	"tar2ext4": {viaTar2ext4, ""},
	"seed":     {viaStaging, "mkfs.ext4"},
	"umoci":    {viaUmoci, "umoci"},
	"podman":   {viaPodman, "podman"},
	"inflate":  {inflateOnly, ""},
}

func open(dir string) (v1.Image, error) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, err
	}
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	return index.Image(m.Manifests[0].Digest)
}

// viaTar2ext4 is Microsoft's writer. Its input comes from go-containerregistry's flattener.
func viaTar2ext4(layout, dir string) error {
	img, err := open(layout)
	if err != nil {
		return err
	}
	flat := mutate.Extract(img)
	defer flat.Close()
	f, err := os.Create(filepath.Join(dir, "rootfs"))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := tar2ext4.Convert(flat, f, tar2ext4.MaximumDiskSize(64<<30)); err != nil {
		return err
	}
	return f.Sync()
}

// viaStaging is the tuned method of the system that banger was derived from: unpack the flattened
// image to a directory, run mkfs.ext4 -d, and run a debugfs script for what an ordinary user cannot
// unpack.
func viaStaging(layout, dir string) error {
	img, err := open(layout)
	if err != nil {
		return err
	}
	stage, script := filepath.Join(dir, "stage"), filepath.Join(dir, "script")
	if err := unpack(img, stage, script); err != nil {
		return err
	}
	rootfs := filepath.Join(dir, "rootfs")
	if err := command("mkfs.ext4", "-q", "-F", "-m", "0", "-E",
		"lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0", "-d", stage, rootfs, "4G"); err != nil {
		return err
	}
	if err := command("debugfs", "-w", "-f", script, rootfs); err != nil {
		return err
	}
	return os.RemoveAll(stage)
}

func unpack(img v1.Image, stage, script string) error {
	flat := mutate.Extract(img)
	defer flat.Close()
	out, err := os.Create(script)
	if err != nil {
		return err
	}
	defer out.Close()
	w := bufio.NewWriter(out)
	if err := os.MkdirAll(stage, 0o755); err != nil {
		return err
	}
	buf := make([]byte, 256<<10)
	for tr := tar.NewReader(flat); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return w.Flush()
		}
		if err != nil {
			return err
		}
		if err := stageEntry(h, tr, stage, w, buf); err != nil {
			return err
		}
	}
}

func stageEntry(h *tar.Header, data io.Reader, stage string, w io.Writer, buf []byte) error {
	name := filepath.Clean("/" + h.Name)
	path := filepath.Join(stage, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	mode := h.Mode & 0o7777
	switch h.Typeflag {
	case tar.TypeDir:
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		mode |= 0o40000
	case tar.TypeReg:
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
		if err != nil {
			return err
		}
		_, err = io.CopyBuffer(struct{ io.Writer }{f}, data, buf)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		mode |= 0o100000
	case tar.TypeSymlink:
		return os.Symlink(h.Linkname, path)
	case tar.TypeLink:
		return os.Link(filepath.Join(stage, filepath.Clean("/"+h.Linkname)), path)
	default:
		return nil
	}
	if strings.ContainsAny(name, "\"\n") {
		return nil
	}
	_, err := fmt.Fprintf(w, "sif %q mode 0%o\nsif %q uid %d\nsif %q gid %d\nsif %q mtime @%d\n", name, mode, name, h.Uid,
		name, h.Gid, name, h.ModTime.Unix())
	return err
}

func viaUmoci(layout, dir string) error {
	bundle := filepath.Join(dir, "bundle")
	if err := command("umoci", "unpack", "--rootless", "--image", layout+":latest", bundle); err != nil {
		return err
	}
	return command("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", "-d",
		filepath.Join(bundle, "rootfs"), filepath.Join(dir, "rootfs"), "4G")
}

func viaPodman(layout, dir string) error {
	root := []string{"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--storage-driver",
		"overlay"}
	id, err := output("podman", append(root, "pull", "-q", "oci:"+layout+":latest")...)
	if err != nil {
		return err
	}
	at, err := output("podman", append(root, "image", "mount", id)...)
	if err != nil {
		return err
	}
	err = command("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", "-d", at,
		filepath.Join(dir, "rootfs"), "4G")
	_, uerr := output("podman", append(root, "image", "unmount", id)...)
	return errors.Join(err, uerr)
}

// inflateOnly is the lower bound: our decompressor without output, with as many layers at once as
// we decode.
func inflateOnly(layout, _ string) error {
	img, err := open(layout)
	if err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	errs := make([]error, len(layers))
	var wg sync.WaitGroup
	for i, l := range layers {
		wg.Go(func() {
			blob, err := l.Compressed()
			if err != nil {
				errs[i] = err
				return
			}
			defer blob.Close()
			z := inflate.NewReader(blob)
			defer z.Close()
			_, errs[i] = io.Copy(io.Discard, z)
		})
	}
	wg.Wait()
	runtime.KeepAlive(img)
	return errors.Join(errs...)
}

func command(name string, args ...string) error {
	_, err := output(name, args...)
	return err
}

func output(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %.500s", name, err, stderr.String())
	}
	lines := strings.Fields(string(out))
	if len(lines) == 0 {
		return "", nil
	}
	return lines[len(lines)-1], nil
}
