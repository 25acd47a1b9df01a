package kernel

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"banger"
	"banger/internal/ext4"
)

const (
	bootModulesDir = "boot-modules"
	modulesList    = "modules.list"
	maxModule      = 64 << 20 // bytes of one module, unpacked
)

// bootModules are the modules that the agent needs before it can mount the modules disk, for all
// transports that a VMM may offer. Absent modules are built into the kernel.
var bootModules = []string{
	"virtio_pci", "virtio_mmio", "virtio_blk", "virtio_console", "virtio_net", "virtio_rng", "virtio_balloon",
	"ext4", "overlay", "vmw_vsock_virtio_transport", "af_packet",
}

// packModules makes in dst the directory of boot modules, with their order, and the modules disk.
func packModules(ctx context.Context, modules, dst string) error {
	index, err := indexModules(modules)
	if err != nil {
		return err
	}
	boot := filepath.Join(dst, bootModulesDir)
	if err := os.Mkdir(boot, 0o755); err != nil {
		return err
	}
	var list strings.Builder
	done := map[string]bool{}
	for _, name := range bootModules {
		if err := addModule(index, boot, name, done, &list); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(boot, modulesList), []byte(list.String()), 0o644); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(modules, "modules.dep.bin")); err != nil {
		if err := depmod(ctx, modules); err != nil {
			return err
		}
	}
	return writeModulesDisk(ctx, modules, filepath.Join(dst, "modules.ext4"))
}

// indexModules maps module names (with underscores) to files.
func indexModules(dir string) (map[string]string, error) {
	index := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := d.Name()
		if i := strings.Index(base, ".ko"); i > 0 && d.Type().IsRegular() {
			index[strings.ReplaceAll(base[:i], "-", "_")] = path
		}
		return nil
	})
	if err == nil && len(index) == 0 {
		return nil, banger.Errorf(banger.CodeInvalid, "there are no modules in %s", dir)
	}
	return index, err
}

// addModule copies a module into dst after all modules that it depends on. It reads the
// dependencies from the module, because a package contains no modules.dep.
func addModule(index map[string]string, dst, name string, done map[string]bool, list *strings.Builder) error {
	name = strings.ReplaceAll(name, "-", "_")
	path, ok := index[name]
	if !ok || done[name] {
		return nil // built in, or already added
	}
	done[name] = true
	ko, err := readModule(path)
	if err != nil {
		return err
	}
	deps, err := moduleDeps(ko)
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	for _, d := range deps {
		if err := addModule(index, dst, d, done, list); err != nil {
			return err
		}
	}
	fmt.Fprintf(list, "/modules/%s.ko\n", name)
	return os.WriteFile(filepath.Join(dst, name+".ko"), ko, 0o644)
}

// moduleDeps returns the depends= and pre-softdeps of a module's .modinfo.
func moduleDeps(ko []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(ko))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("no .modinfo")
	}
	data, err := section.Data()
	if err != nil {
		return nil, err
	}
	var deps []string
	for field := range strings.SplitSeq(string(data), "\x00") {
		if d, ok := strings.CutPrefix(field, "depends="); ok && d != "" {
			deps = append(deps, strings.Split(d, ",")...)
		}
		if d, ok := strings.CutPrefix(field, "softdep=pre: "); ok {
			pre, _, _ := strings.Cut(d, "post:")
			deps = append(deps, strings.Fields(pre)...)
		}
	}
	return deps, nil
}

func readModule(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var r io.Reader = f
	switch filepath.Ext(path) {
	case ".xz":
		r, err = xz.NewReader(f)
	case ".gz":
		r, err = gzip.NewReader(f)
	case ".zst":
		var d *zstd.Decoder
		if d, err = zstd.NewReader(f); err == nil {
			defer d.Close()
			r = d
		}
	}
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	if len(data) > maxModule {
		return nil, fmt.Errorf("%s is over %d bytes", path, maxModule)
	}
	return data, err
}

// depmod writes the index files for modprobe in the guest.
func depmod(ctx context.Context, modules string) error {
	version := filepath.Base(modules)
	base := strings.TrimSuffix(strings.TrimSuffix(filepath.Dir(modules), "/lib/modules"), "/usr")
	args := []string{"-b", base, version}
	if strings.HasSuffix(filepath.Dir(modules), "/usr/lib/modules") {
		// depmod searches only below BASE/lib/modules.
		if err := os.Symlink("usr/lib", filepath.Join(base, "lib")); err != nil && !os.IsExist(err) {
			return err
		}
	}
	path, err := exec.LookPath("depmod")
	if err != nil {
		path = "/sbin/depmod" // on Debian not in an ordinary user's PATH
	}
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("depmod (package kmod): %w: %.200s", err, out)
	}
	return nil
}

// writeModulesDisk packs dir into an ext4 image in which root owns all files.
func writeModulesDisk(ctx context.Context, dir, dst string) error {
	out, err := os.OpenFile(dst, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	w, err := ext4.New(out, ext4.Options{Size: 1 << 30, Label: "modules"})
	if err != nil {
		return err
	}
	root := &ext4.Node{Mode: syscall.S_IFDIR | 0o755, Children: map[string]*ext4.Node{}}
	nodes := map[string]*ext4.Node{dir: root}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil || path == dir {
			return err
		}
		node, err := moduleNode(w, path, d)
		if err != nil || node == nil {
			return err
		}
		nodes[path] = node
		nodes[filepath.Dir(path)].Children[d.Name()] = node
		return nil
	})
	if err != nil {
		return err
	}
	if err := w.Finish(root); err != nil {
		return err
	}
	return out.Close()
}

func moduleNode(w *ext4.Writer, path string, d fs.DirEntry) (*ext4.Node, error) {
	info, err := d.Info()
	if err != nil {
		return nil, err
	}
	n := &ext4.Node{Mtime: info.ModTime()}
	switch {
	case d.IsDir():
		n.Mode, n.Children = syscall.S_IFDIR|0o755, map[string]*ext4.Node{}
	case d.Type().IsRegular():
		n.Mode = syscall.S_IFREG | 0o644
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		n.Data, err = w.WriteData(f)
		if err != nil {
			return nil, err
		}
	default:
		return nil, nil // the links build and source lead out of the tree
	}
	return n, nil
}
