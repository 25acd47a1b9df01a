package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"
)

// elfFile returns the smallest ELF file with a .modinfo section, which serves as a
// module and as a kernel.
func elfFile(modinfo ...string) []byte {
	const header, sections = 64, 3
	info := strings.Join(modinfo, "\x00") + "\x00"
	names := "\x00.modinfo\x00.shstrtab\x00"
	var buf bytes.Buffer
	put := func(v any) { binary.Write(&buf, binary.LittleEndian, v) }
	put(elf.Header64{Ident: [16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, Type: uint16(elf.ET_REL),
		Machine: uint16(elf.EM_X86_64), Version: 1,
		Shoff: header + uint64(len(info)+len(names)), Ehsize: header, Shentsize: 64, Shnum: sections, Shstrndx: 2})
	buf.WriteString(info + names)
	put(elf.Section64{})
	put(elf.Section64{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: header, Size: uint64(len(info))})
	put(elf.Section64{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: header + uint64(len(info)), Size: uint64(len(names))})
	return buf.Bytes()
}

// bzImage wraps a payload as described in Documentation/arch/x86/boot.rst: magic number, number of
// setup sectors, offset and length of the payload behind them.
func bzImage(sectors byte, payload []byte) []byte {
	const gap = 100 // the decompressor's code
	real := sectors
	if sectors == 0 {
		real = 4
	}
	data := make([]byte, (int(real)+1)*512+gap)
	data[0x1f1] = sectors
	copy(data[0x202:], "HdrS")
	binary.LittleEndian.PutUint32(data[0x248:], gap)
	binary.LittleEndian.PutUint32(data[0x24c:], uint32(len(payload)))
	return append(append(data, payload...), "what follows"...)
}

// sized appends the unpacked size, as the kernel's build does for all formats except gzip.
func sized(p []byte, size int) []byte { return binary.LittleEndian.AppendUint32(p, uint32(size)) }

func gzipped(t *testing.T, p []byte) []byte {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	w.Write(p)
	check(t, w.Close())
	return buf.Bytes()
}

func xzed(t *testing.T, p []byte) []byte {
	var buf bytes.Buffer
	w, err := xz.NewWriter(&buf)
	check(t, err)
	w.Write(p)
	check(t, w.Close())
	return buf.Bytes()
}

func lzmaed(t *testing.T, p []byte) []byte {
	var buf bytes.Buffer
	w, err := lzma.NewWriter(&buf)
	check(t, err)
	w.Write(p)
	check(t, w.Close())
	return buf.Bytes()
}

func zstded(t *testing.T, p []byte) []byte {
	w, err := zstd.NewWriter(nil)
	check(t, err)
	return w.EncodeAll(p, nil)
}

func lz4ed(t *testing.T, p []byte) []byte {
	var buf bytes.Buffer
	w := lz4.NewWriter(&buf)
	check(t, w.Apply(lz4.LegacyOption(true)))
	w.Write(p)
	check(t, w.Close())
	return buf.Bytes()
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write makes a file and its parent directories, and returns the path.
func write(t *testing.T, data []byte, path ...string) string {
	t.Helper()
	p := filepath.Join(path...)
	check(t, os.MkdirAll(filepath.Dir(p), 0o755))
	check(t, os.WriteFile(p, data, 0o644))
	return p
}

// moduleTree makes a …/lib/modules/VERSION with files and returns its path. It
// has index files already, so depmod is not needed.
func moduleTree(t *testing.T, files map[string][]byte) string {
	t.Helper()
	at := filepath.Join(t.TempDir(), "lib", "modules", "6.1.0-test")
	write(t, []byte("index"), at, "modules.dep.bin")
	for name, data := range files {
		write(t, data, at, name)
	}
	return at
}

func fsck(t *testing.T, path string) {
	t.Helper()
	out, err := exec.Command("/sbin/e2fsck", "-fn", path).CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err != nil || len(lines) != 7 { // version, five passes, the summary
		t.Fatalf("e2fsck: %v\n%.3000s", err, out)
	}
}

// cat returns a file of an ext4 image.
func cat(t *testing.T, image, name string) string {
	t.Helper()
	out, err := exec.Command("/sbin/debugfs", "-R", "cat "+name, image).Output()
	check(t, err)
	return string(out)
}
