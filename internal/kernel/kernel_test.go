package kernel

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/u-root/u-root/pkg/cpio"

	"banger"
)

var vmlinux = elfFile("a kernel", strings.Repeat("code ", 1000))

// bzipped is vmlinux compressed by bzip2 -9, which the standard library cannot write. xzX86 is
// vmlinux compressed by xz --check=crc32 --x86 --lzma2=dict=32MiB, as x86 kernels are
// (scripts/xz_wrap.sh).
const (
	bzipped = `QlpoOTFBWSZTWfzr8KIACf79o3sQjBhAAQADQwQ/b5wAkAAQAAEAIABoNT1E0MhoDQAAARVJptTQGgHqDIB6eqUMKklZS16oQ0oCA4ikxkMKANzFJqlQrctQeQjfU4xEspgAir3yBznri++UWzVBVr4oIq+QEVafqorld7jGlAEVYldmi3THyZ/F3JFOFCQ/OvwogA==`
	xzX86   = `/Td6WFoAAAFpIt42AgEEACEBGgAByYCz4BSlAHNdAD+RRYRoPYmm2pymrC4ry8/+J8JT+PMV+pHNcM4DzYTpFL//KaX9qiiDAZFJ8itToWFpysRLLLNDAfMYAX8XUvdoG3QUHiZFVC0I9gjgtt/TBq/lNUYYs90ghq7vqjRbU3blUJKkyzoR2g/1kkxgChk+RIAAAGAz78gAAYsBpikAAMAi3tU+MA2LAgAAAAABWVo=`
)

func decoded(t *testing.T, text string) []byte {
	p, err := base64.StdEncoding.DecodeString(text)
	check(t, err)
	return p
}

func TestVmlinuxIsExtracted(t *testing.T) {
	n := len(vmlinux)
	for name, image := range map[string][]byte{
		"an ELF file":     vmlinux,
		"gzip":            bzImage(1, gzipped(t, vmlinux)),
		"xz":              bzImage(1, sized(xzed(t, vmlinux), n)),
		"zstd":            bzImage(1, sized(zstded(t, vmlinux), n)),
		"lz4":             bzImage(1, sized(lz4ed(t, vmlinux), n)),
		"lzma":            bzImage(1, sized(lzmaed(t, vmlinux), n)),
		"bzip2":           bzImage(1, sized(decoded(t, bzipped), n)),
		"0 sectors are 4": bzImage(0, gzipped(t, vmlinux)),
		"many sectors":    bzImage(64, gzipped(t, vmlinux)),
	} {
		t.Run(name, func(t *testing.T) {
			dst := filepath.Join(t.TempDir(), "vmlinux")
			check(t, extractVmlinux(write(t, image, t.TempDir(), "image"), dst))
			if got, err := os.ReadFile(dst); err != nil || !bytes.Equal(got, vmlinux) {
				t.Errorf("got %d bytes, %v, that are not the kernel of %d", len(got), err, n)
			}
		})
	}
}

func TestWhatIsNoKernelIsRefused(t *testing.T) {
	n := len(vmlinux)
	outside := bzImage(1, gzipped(t, vmlinux))
	copy(outside[0x248:], "\xff\xff\xff\xff\xff\xff\xff\xff")
	tooShort := bzImage(1, gzipped(t, vmlinux))
	copy(tooShort[0x24c:], "\x07\x00\x00\x00")
	for name, c := range map[string]struct {
		image []byte
		words string
	}{
		"empty":                    {nil, "neither ELF nor bzImage"},
		"text":                     {[]byte(strings.Repeat("text", 1000)), "neither ELF nor bzImage"},
		"the magic alone":          {bzImage(1, nil)[:0x206], "neither ELF nor bzImage"},
		"payload outside":          {outside, "outside the file"},
		"payload of 7 bytes":       {tooShort, "outside the file"},
		"unknown compression":      {bzImage(1, sized([]byte("unknown"), n)), "unknown compression"},
		"claims 3 GiB":             {bzImage(1, sized(zstded(t, vmlinux), 3<<30)), "claims to unpack"},
		"holds less than it says":  {bzImage(1, sized(zstded(t, vmlinux), n+1)), "instead of"},
		"gzip cut off":             {bzImage(1, sized(gzipped(t, vmlinux)[:50], n)), "instead of"},
		"xz cut off":               {bzImage(1, sized(xzed(t, vmlinux)[:50], n)), "EOF"},
		"lz4 cut off":              {bzImage(1, sized(lz4ed(t, vmlinux)[:50], n)), "instead of"},
		"zstd window of terabytes": {bzImage(1, sized([]byte("\x28\xb5\x2f\xfd\x00\xf8\x01\x00\x00"), n)), "instead of"},
		"xz with the x86 filter":   {bzImage(1, sized(decoded(t, xzX86), n)), "unsupported filter"}, // the library has none
		"no ELF inside":            {bzImage(1, gzipped(t, []byte(strings.Repeat("text", 1000)))), "no ELF kernel"},
		"half an ELF file":         {vmlinux[:40], "no ELF kernel"},
	} {
		t.Run(name, func(t *testing.T) {
			dst := filepath.Join(t.TempDir(), "vmlinux")
			err := extractVmlinux(write(t, c.image, t.TempDir(), "image"), dst)
			if err == nil || !strings.Contains(err.Error(), c.words) {
				t.Errorf("the error is %v, not one with %q", err, c.words)
			}
			if _, err := os.Stat(dst); err == nil {
				t.Error("a kernel was written all the same")
			}
		})
	}
}

// TestBootModulesComeBehindWhatTheyNeed reads the order that the agent loads in.
func TestBootModulesComeBehindWhatTheyNeed(t *testing.T) {
	none := elfFile("license=GPL", "depends=")
	for name, c := range map[string]struct {
		files map[string][]byte
		want  []string
	}{
		"only what booting needs": {map[string][]byte{
			"drivers/virtio_blk.ko": none,
			"sound/snd.ko":          none,
		}, []string{"virtio_blk"}},
		"in the agent's order": {map[string][]byte{"a/ext4.ko": none, "b/virtio_pci.ko": none, "c/overlay.ko": none},
			[]string{"virtio_pci", "ext4", "overlay"}},
		"dependencies first": {map[string][]byte{
			"ext4.ko":    elfFile("depends=jbd2,mbcache"),
			"jbd2.ko":    elfFile("depends=crc"),
			"mbcache.ko": none,
			"crc.ko":     none,
		},
			[]string{"crc", "jbd2", "mbcache", "ext4"}},
		"each once": {map[string][]byte{
			"virtio_pci.ko":  elfFile("depends=virtio_ring"),
			"virtio_blk.ko":  elfFile("depends=virtio_ring"),
			"virtio_ring.ko": none,
		},
			[]string{"virtio_ring", "virtio_pci", "virtio_blk"}},
		"soft dependencies": {map[string][]byte{
			"ext4.ko":   elfFile("depends=", "softdep=pre: crc32c aes post: late"),
			"crc32c.ko": none,
			"aes.ko":    none,
			"late.ko":   none,
		},
			[]string{"crc32c", "aes", "ext4"}},
		"hyphens are underscores": {map[string][]byte{
			"virtio-pci.ko":  elfFile("depends=virtio-ring"),
			"virtio-ring.ko": none,
		}, []string{"virtio_ring", "virtio_pci"}},
		"what is built in": {map[string][]byte{"ext4.ko": elfFile("depends=builtin")}, []string{"ext4"}},
		"a circle ends": {map[string][]byte{
			"ext4.ko": elfFile("depends=jbd2"),
			"jbd2.ko": elfFile("depends=ext4"),
		}, []string{"jbd2", "ext4"}},
		"compressed modules": {map[string][]byte{
			"virtio_pci.ko.xz": xzed(t, none),
			"ext4.ko.zst":      zstded(t, none),
			"overlay.ko.gz":    gzipped(t, none),
		},
			[]string{"virtio_pci", "ext4", "overlay"}},
	} {
		t.Run(name, func(t *testing.T) {
			dst := t.TempDir()
			check(t, packModules(context.Background(), moduleTree(t, c.files), dst))
			list, err := os.ReadFile(filepath.Join(dst, bootModulesDir, modulesList))
			check(t, err)
			var want strings.Builder
			for _, m := range c.want {
				fmt.Fprintf(&want, "/modules/%s.ko\n", m)
				if ko, err := os.ReadFile(filepath.Join(dst, bootModulesDir, m+".ko")); err != nil ||
					!bytes.HasPrefix(ko, []byte("\x7fELF")) {
					t.Errorf("%s.ko is not an unpacked module: %v", m, err)
				}
			}
			if string(list) != want.String() {
				t.Errorf("the order is\n%snot\n%s", list, want.String())
			}
		})
	}
}

func TestTheModulesDiskHoldsTheWholeTree(t *testing.T) {
	dst := t.TempDir()
	tree := moduleTree(t, map[string][]byte{"kernel/sound/snd.ko": elfFile("depends="), "modules.order": []byte("order")})
	check(t, os.Symlink("/usr/src", filepath.Join(tree, "build")))
	check(t, packModules(context.Background(), tree, dst))
	disk := filepath.Join(dst, "modules.ext4")
	fsck(t, disk)
	if got := cat(t, disk, "/kernel/sound/snd.ko"); got != string(elfFile("depends=")) {
		t.Errorf("snd.ko has %d bytes", len(got))
	}
	if got := cat(t, disk, "/modules.order"); got != "order" {
		t.Errorf("modules.order is %q", got)
	}
	if got := cat(t, disk, "/build"); got != "" {
		t.Errorf("a link out of the tree was packed: %q", got)
	}
}

func TestBrokenModulesAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string][]byte
		words string
	}{
		"none at all":  {nil, "no modules"},
		"text":         {map[string][]byte{"ext4.ko": []byte("text")}, "ext4.ko"},
		"xz cut off":   {map[string][]byte{"ext4.ko.xz": xzed(t, vmlinux)[:40]}, "EOF"},
		"gzip bomb":    {map[string][]byte{"ext4.ko.gz": gzipped(t, make([]byte, maxModule+1))}, "over"},
		"broken needs": {map[string][]byte{"ext4.ko": elfFile("depends=jbd2"), "jbd2.ko": []byte("text")}, "jbd2.ko"},
	} {
		t.Run(name, func(t *testing.T) {
			err := packModules(context.Background(), moduleTree(t, c.files), t.TempDir())
			if err == nil || !strings.Contains(err.Error(), c.words) {
				t.Errorf("the error is %v, not one with %q", err, c.words)
			}
		})
	}
}

// source makes the files that a kernel is imported from.
func source(t *testing.T) (image, modules string) {
	t.Helper()
	return write(t, bzImage(1, gzipped(t, vmlinux)), t.TempDir(), "vmlinuz"), moduleTree(t, map[string][]byte{
		"ext4.ko": elfFile("depends=jbd2"), "jbd2.ko": elfFile("depends=")})
}

// imported returns a store with kernels of these names, added in this order.
func imported(t *testing.T, names ...string) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "kernels"))
	check(t, err)
	image, modules := source(t)
	for _, name := range names {
		_, err := s.Import(context.Background(), name, image, modules, "a test", banger.Discard)
		check(t, err)
	}
	return s
}

// wantDir fails the test unless the store's directory has exactly these names.
func wantDir(t *testing.T, s *Store, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(s.dir)
	check(t, err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, names) {
		t.Errorf("the directory holds %q, not %q", got, names)
	}
}

func TestImportMakesAllThatAVMNeeds(t *testing.T) {
	s := imported(t, "k")
	k, err := s.Get("k")
	check(t, err)
	if k.Version != "6.1.0-test" || k.Source != "a test" || !k.Default || k.Size == 0 || k.AddedAt.IsZero() {
		t.Errorf("the kernel is %+v", k)
	}
	if got, err := os.ReadFile(s.Vmlinux("k")); err != nil || !bytes.Equal(got, vmlinux) {
		t.Errorf("vmlinux has %d bytes, %v", len(got), err)
	}
	fsck(t, s.ModulesDisk("k"))
	wantDir(t, s, "k")
}

func TestTheLastKernelIsTheDefault(t *testing.T) {
	s := imported(t, "z-first", "a-second")
	list, err := s.List()
	check(t, err)
	if len(list) != 2 || list[0].Name != "a-second" || !list[0].Default || list[1].Default {
		t.Errorf("the list is %+v", list)
	}
	if k, err := s.Get(""); err != nil || k.Name != "a-second" {
		t.Errorf("the default is %q, %v", k.Name, err)
	}
	check(t, s.Remove("a-second", noVM))
	if k, err := s.Get(""); err != nil || k.Name != "z-first" {
		t.Errorf("after its removal the default is %q, %v", k.Name, err)
	}
	wantDir(t, s, "z-first")
}

func TestImportRefusesAndLeavesNothing(t *testing.T) {
	image, modules := source(t)
	text := write(t, []byte("text"), t.TempDir(), "text")
	for name, c := range map[string]struct {
		name, image, modules string
		code                 banger.Code
	}{
		"no name":             {"", image, modules, banger.CodeInvalid},
		"a name that climbs":  {"../k", image, modules, banger.CodeInvalid},
		"a hidden name":       {".k", image, modules, banger.CodeInvalid},
		"a name too long":     {strings.Repeat("k", 129), image, modules, banger.CodeInvalid},
		"a name that is gone": {"taken", image, modules, banger.CodeConflict},
		"no image":            {"k", "/nonexistent", modules, banger.CodeInvalid},
		"no modules":          {"k", image, "/nonexistent", banger.CodeInvalid},
		"text for an image":   {"k", text, modules, banger.CodeInvalid},
		"an empty tree":       {"k", image, t.TempDir(), banger.CodeInvalid},
		"a file for a tree":   {"k", image, text, banger.CodeInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			s := imported(t, "taken")
			_, err := s.Import(context.Background(), c.name, c.image, c.modules, "a test", banger.Discard)
			if err == nil || banger.CodeOf(err) != c.code || strings.Contains(err.Error(), "\n") {
				t.Errorf("the error is %q, not one sentence of code %s", err, c.code)
			}
			wantDir(t, s, "taken")
		})
	}
}

func TestACanceledImportLeavesNothing(t *testing.T) {
	s := imported(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	image, modules := source(t)
	if _, err := s.Import(ctx, "k", image, modules, "a test", banger.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	wantDir(t, s)
}

func TestOpenForgetsUnfinishedWork(t *testing.T) {
	s := imported(t, "k")
	write(t, nil, s.dir, tmpPrefix+"1", "vmlinux")
	half := write(t, nil, s.dir, "k", "initrd-0123456789abcdef.cpio.tmp")
	_, err := Open(s.dir)
	check(t, err)
	wantDir(t, s, "k")
	if _, err := os.Lstat(half); err == nil {
		t.Errorf("%s is left", half)
	}
}

// TestAListDoesNotFailOfARemoval that happens at the same time.
func TestAListDoesNotFailOfARemoval(t *testing.T) {
	s := imported(t)
	image, modules := source(t)
	done := make(chan error)
	go func() {
		var err error
		for range 50 {
			_, ierr := s.Import(context.Background(), "k", image, modules, "a test", banger.Discard)
			err = errors.Join(err, ierr, s.Remove("k", noVM))
		}
		done <- err
	}()
	for {
		if _, err := s.List(); err != nil {
			t.Error(err)
			<-done
			return
		}
		select {
		case err := <-done:
			check(t, err)
			return
		default:
		}
	}
}

func TestKernelsThatAreNotThere(t *testing.T) {
	for name, ask := range map[string]func(*Store) error{
		"Get":             func(s *Store) error { _, err := s.Get("k"); return err },
		"Get the default": func(s *Store) error { _, err := s.Get(""); return err },
		"Get a path":      func(s *Store) error { _, err := s.Get("../kernels"); return err },
		"Remove":          func(s *Store) error { return s.Remove("k", noVM) },
		"Ensure a name":   func(s *Store) error { _, err := s.Ensure(context.Background(), "k", banger.Discard); return err },
	} {
		t.Run(name, func(t *testing.T) {
			if err := ask(imported(t)); err == nil || banger.CodeOf(err) != banger.CodeNotFound {
				t.Errorf("the error is %v, not one of code not_found", err)
			}
		})
	}
}

// TestTheInitramfs parses the archive back as the guest's kernel does.
func TestTheInitramfs(t *testing.T) {
	s := imported(t, "k")
	path, _, err := s.Initrd("k", []byte("the agent"), unused)
	check(t, err)
	data, err := os.ReadFile(path)
	check(t, err)
	records, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(data)))
	check(t, err)
	var got strings.Builder
	for _, r := range records {
		content := make([]byte, r.FileSize)
		if r.FileSize > 0 {
			_, err = r.ReadAt(content, 0)
			check(t, err)
		}
		if bytes.HasPrefix(content, []byte("\x7fELF")) {
			content = []byte("a module")
		}
		fmt.Fprintf(&got, "%s %o %d:%d %q\n", r.Name, r.Mode, r.Rmajor, r.Rminor, content)
	}
	const want = `dev 40755 0:0 ""
proc 40755 0:0 ""
sys 40755 0:0 ""
dev/console 20600 5:1 ""
init 100755 0:0 "the agent"
modules 40755 0:0 ""
modules.list 100644 0:0 "/modules/jbd2.ko\n/modules/ext4.ko\n"
modules/jbd2.ko 100644 0:0 "a module"
modules/ext4.ko 100644 0:0 "a module"
`
	if strings.TrimSuffix(got.String(), "TRAILER!!! 0 0:0 \"\"\n") != want {
		t.Errorf("the archive holds\n%snot\n%s", got.String(), want)
	}
}

// TestOneInitramfsForEachAgent: a new agent replaces the old one's archive.
func TestOneInitramfsForEachAgent(t *testing.T) {
	s := imported(t, "k")
	used := ""
	initrd := func(agent string) string {
		path, _, err := s.Initrd("k", []byte(agent), func(file string) bool { return file == used })
		check(t, err)
		return path
	}
	first := initrd("one")
	if again := initrd("one"); again != first {
		t.Errorf("the same agent has %s and %s", first, again)
	}
	second := initrd("two")
	left, err := filepath.Glob(filepath.Join(s.dir, "k", "initrd-*"))
	check(t, err)
	if second == first || !slices.Equal(left, []string{second}) {
		t.Errorf("%s is followed by %s, and %q are there", first, second, left)
	}
	used = filepath.Base(second) // by a VM that sleeps through an upgrade
	initrd("three")
	if _, err := os.Stat(second); err != nil {
		t.Errorf("the archive of a VM is removed: %v", err)
	}
}

// TestAKernelThatIsHeldStays.
func TestAKernelThatIsHeldStays(t *testing.T) {
	s := imported(t, "k")
	release, err := s.Pin("k", "the creation of VM box")
	check(t, err)
	if err := s.Remove("k", noVM); banger.CodeOf(err) != banger.CodeConflict ||
		!strings.Contains(err.Error(), "the creation of VM box") {
		t.Errorf("a held kernel is removed: %v", err)
	}
	release()
	if err := s.Remove("k", func(string) string {
		return "box"
	}); banger.CodeOf(err) != banger.CodeConflict || !strings.Contains(err.Error(), "VM box") {
		t.Errorf("the kernel of a VM is removed: %v", err)
	}
	check(t, s.Remove("k", noVM))
	if _, err := s.Pin("k", "nobody"); banger.CodeOf(err) != banger.CodeNotFound {
		t.Errorf("what is gone can be held: %v", err)
	}
}

func TestInitramfsWithoutAnAgentIsRefused(t *testing.T) {
	if _, _, err := imported(t, "k").Initrd("k", nil, unused); err == nil || banger.CodeOf(err) != banger.CodeInternal {
		t.Errorf("the error is %v, not one of code internal", err)
	}
}

// noVM says that no VM uses a kernel, and unused that no VM uses an initramfs.
func noVM(string) string { return "" }
func unused(string) bool { return false }
