//go:build power

package power

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/disk"
	"banger/internal/image"
	"banger/internal/kernel"
	"banger/internal/testing/registrytest"
)

const (
	baseKernel   = "base"
	debianKernel = "debian-" + debianRelease
	// debianRelease is the kernel in the double of apt.
	debianRelease = "6.1.0-99-cloud-amd64"
	pictures      = 3 // references of a client
	versions      = 2 // of each
)

// world is what exists outside of the daemon's state, and what it becomes in the state.
type world struct {
	Dir      string
	Registry string            // host:port
	Image    string            // of all VMs
	Content  map[string]string // of a rootfs by the image's digest, and of a kernel by its source
	Digests  map[string]string // by reference and version, or by the path of a rootfs

	server   *registrytest.Server
	layers   map[string][]registrytest.Layer // by reference and version
	bringing *sync.RWMutex                   // held for reading while something is brought in
}

func (w world) close() { w.server.Close() }

// env returns an environment in which the double of apt comes before the host's apt.
func (w world) env() []string {
	return []string{"PATH=" + filepath.Join(w.Dir, "bin") + ":" + os.Getenv("PATH")}
}

func pictureName(client, i int) string    { return fmt.Sprintf("c%d/picture%d", client, i) }
func (w world) ref(name string) string    { return w.Registry + "/" + name + ":v1" }
func versioned(name string, v int) string { return fmt.Sprintf("%s version %d", name, v) }
func (w world) rootfsFile(client int) string {
	return filepath.Join(w.Dir, fmt.Sprintf("own-%d.ext4", client))
}

// publish makes the registry's tag point to a version.
func (w world) publish(name string, version int) string {
	return w.server.AddImage(name, "v1", w.layers[versioned(name, version)]...)
}

// newWorld makes images in a registry, kernels in files, and what they become in separate stores.
func newWorld(t *testing.T, dir string, seed uint64) world {
	t.Helper()
	w := world{Dir: dir, Content: map[string]string{}, Digests: map[string]string{},
		server: registrytest.Start(), layers: map[string][]registrytest.Layer{}, bringing: &sync.RWMutex{}}
	t.Cleanup(w.close)
	w.Registry = w.server.Addr()
	dice := rand.New(rand.NewPCG(seed, 3))
	truth, err := image.Open(filepath.Join(dir, "truth"), image.Options{})
	check(t, err)
	base := layerOf(t, dice, "base", 300<<10)
	add := func(name string, version int, layers ...registrytest.Layer) {
		w.layers[versioned(name, version)] = layers
		digest := w.publish(name, version)
		_, err := truth.Ensure(t.Context(), w.ref(name), "", banger.PullAlways, banger.Discard)
		check(t, err)
		w.Digests[versioned(name, version)] = digest
		w.Content[digest], err = contentOf(truth.RootfsPath(digest))
		check(t, err)
	}
	w.Image = w.ref("base")
	add("base", 0, base)
	for client := range clients {
		for i := range pictures {
			for v := range versions {
				add(pictureName(client, i), v, base, layerOf(t, dice, "own", 100<<10))
			}
		}
		w.pack(t, truth, client)
		check(t, disk.Create(w.rootfsFile(client), banger.MinDisk))
		img, err := truth.Register(t.Context(), fmt.Sprintf("own%d:v1", client), w.rootfsFile(client), "")
		check(t, err)
		w.Digests[w.rootfsFile(client)] = img.Digest
		w.Content[img.Digest], err = contentOf(w.rootfsFile(client))
		check(t, err)
	}
	w.addKernels(t, dice)
	return w
}

func (w world) packed(client int) string {
	return filepath.Join(w.Dir, fmt.Sprintf("packed-%d.tar", client))
}

// pack writes a tar of an image that is not in a registry.
func (w world) pack(t *testing.T, truth *image.Store, client int) {
	t.Helper()
	name := fmt.Sprintf("c%d/packed", client)
	digest := w.Digests[versioned(pictureName(client, 0), 0)]
	_, err := truth.Tag(digest, w.ref(name))
	check(t, err)
	w.Digests[w.packed(client)] = digest
	e, err := truth.Export([]string{w.ref(name)})
	check(t, err)
	f, err := os.Create(w.packed(client))
	check(t, err)
	check(t, errors.Join(e.Write(t.Context(), f), f.Close()))
}

// layerOf returns a layer of some files of random bytes.
func layerOf(t *testing.T, dice *rand.Rand, name string, size int) registrytest.Layer {
	t.Helper()
	var plain, stored bytes.Buffer
	tw := tar.NewWriter(&plain)
	for i := range 4 {
		data := random(dice, size/4)
		file := &tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("%s-%d", name, i), Mode: 0o644, Size: int64(len(data))}
		check(t, tw.WriteHeader(file))
		_, err := tw.Write(data)
		check(t, err)
	}
	check(t, tw.Close())
	zw := gzip.NewWriter(&stored)
	_, err := zw.Write(plain.Bytes())
	check(t, errors.Join(err, zw.Close()))
	return registrytest.Layer{Stored: stored.Bytes(), Plain: plain.Bytes()}
}

func random(dice *rand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := 0; i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(p[i:], dice.Uint64())
	}
	return p
}

func (w world) vmlinux(release string) string {
	return filepath.Join(w.Dir, "kernel", release, "boot", "vmlinuz-"+release)
}
func (w world) modules(release string) string {
	return filepath.Join(w.Dir, "kernel", release, "lib", "modules", release)
}

// releases are the kernels that exist as files.
var releases = []string{"6.1.0-1-test", "6.1.0-2-test", debianRelease}

// noon is the time of the kernels' files.
var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// addKernels makes kernels, a double of apt that has one of them as a package, and what they
// become.
func (w world) addKernels(t *testing.T, dice *rand.Rand) {
	t.Helper()
	truth, err := kernel.Open(filepath.Join(w.Dir, "truth-kernels"))
	check(t, err)
	for _, release := range releases {
		write := func(path string, data []byte) {
			check(t, os.MkdirAll(filepath.Dir(path), 0o755))
			check(t, os.WriteFile(path, data, 0o644))
		}
		write(w.vmlinux(release), append(elfFile("a kernel"), random(dice, 400<<10)...))
		for _, name := range []string{"virtio_blk", "ext4", "loop"} {
			write(filepath.Join(w.modules(release), "kernel", name+".ko"), append(elfFile("depends="), random(dice, 60<<10)...))
		}
		write(filepath.Join(w.modules(release), "modules.dep.bin"), []byte("an index"))
		check(t, filepath.WalkDir(filepath.Join(w.Dir, "kernel", release), func(path string, _ fs.DirEntry, err error) error {
			return errors.Join(err, os.Chtimes(path, noon, noon)) // a package keeps whole seconds
		}))
		_, err := truth.Import(t.Context(), release, w.vmlinux(release), w.modules(release), "a test", banger.Discard)
		check(t, err)
		w.Content[release], err = kernelContent(filepath.Join(w.Dir, "truth-kernels", release))
		check(t, err)
	}
	bin, tree := filepath.Join(w.Dir, "bin"), filepath.Join(w.Dir, "kernel", debianRelease)
	check(t, os.Mkdir(bin, 0o755))
	check(t, os.Mkdir(filepath.Join(tree, "DEBIAN"), 0o755))
	control := "Package: linux-image-" + debianRelease +
		"\nVersion: 1\nArchitecture: all\nMaintainer: a test <test@localhost>\nDescription: a kernel\n"
	check(t, os.WriteFile(filepath.Join(tree, "DEBIAN", "control"), []byte(control), 0o644))
	mustTool(t, "dpkg-deb", "-Znone", "-b", tree, filepath.Join(w.Dir, "kernel.deb"))
	for name, script := range map[string]string{
		"apt-cache": "echo '  Depends: linux-image-" + debianRelease + "'",
		"apt-get":   "cp '" + filepath.Join(w.Dir, "kernel.deb") + "' .",
	} {
		check(t, os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755))
	}
}

// install adds the image and the kernel that all VMs use.
func (w world) install(t *testing.T, b *daemon) {
	t.Helper()
	ctx := context.Background()
	_, err := b.api.PullImage(ctx, w.Image, "", banger.Discard)
	check(t, err)
	_, err = b.api.ImportKernel(ctx, baseKernel, w.vmlinux(releases[0]), w.modules(releases[0]), banger.Discard)
	check(t, err)
}

// elfFile returns the smallest ELF file with a .modinfo section. It serves as a module and as a
// kernel.
func elfFile(modinfo ...string) []byte {
	const header, sections = 64, 3
	info := strings.Join(modinfo, "\x00") + "\x00"
	names := "\x00.modinfo\x00.shstrtab\x00"
	var buf bytes.Buffer
	put := func(v any) { binary.Write(&buf, binary.LittleEndian, v) }
	put(elf.Header64{Ident: [16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, Type: uint16(elf.ET_REL), Version: 1,
		Machine: uint16(elf.EM_X86_64), Shoff: header + uint64(len(info)+len(names)), Ehsize: header,
		Shentsize: 64, Shnum: sections, Shstrndx: 2})
	buf.WriteString(info + names)
	put(elf.Section64{})
	put(elf.Section64{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: header, Size: uint64(len(info))})
	put(elf.Section64{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: header + uint64(len(info)), Size: uint64(len(names))})
	return buf.Bytes()
}

// contentOf returns a hash of the non-zero blocks of a sparse file and of their offsets.
func contentOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	h, buf, zero := sha256.New(), make([]byte, block), make([]byte, block)
	fmt.Fprintln(h, info.Size())
	for at := int64(0); ; at += block {
		data, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return hex.EncodeToString(h.Sum(nil)), nil
		}
		if err != nil {
			return "", err
		}
		at = data / block * block
		n, _ := f.ReadAt(buf, at)
		if !bytes.Equal(buf[:n], zero[:n]) {
			fmt.Fprintln(h, at)
			h.Write(buf[:n])
		}
	}
}

// kernelContent returns a hash of the files of a kernel, without those that record when it was
// added.
func kernelContent(dir string) (string, error) {
	h := sha256.New()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "kernel.json" || strings.HasPrefix(d.Name(), "initrd-") {
			return err
		}
		content, err := contentOf(path)
		fmt.Fprintln(h, strings.TrimPrefix(path, dir), content)
		return err
	})
	return hex.EncodeToString(h.Sum(nil)), err
}
