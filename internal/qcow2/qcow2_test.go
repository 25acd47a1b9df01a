package qcow2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// overlay makes an empty overlay of a disk of size bytes.
func overlay(t *testing.T, dir, name string, size int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, name))
	must(t, err)
	t.Cleanup(func() { f.Close() })
	must(t, Create(f, size))
	return f
}

// qemu runs a program of qemu-utils.
func qemu(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%q: %v: %s", args, err, out)
	}
}

// graph names a chain as banger does: with all drivers, and without a word of the files. The top is first.
func graph(paths ...string) string {
	driver := "qcow2"
	if len(paths) == 1 {
		driver = "raw"
	}
	g := fmt.Sprintf(`{"driver":%q,"file":{"driver":"file","filename":%q,"locking":"off","discard":"unmap"}`, driver, paths[0])
	if driver == "qcow2" {
		g += `,"discard":"unmap","backing":` + graph(paths[1:]...)
	}
	return g + "}"
}

// TestQEMUAndWeReadTheSame writes three overlays by QEMU's own code, and reads them by both.
func TestQEMUAndWeReadTheSame(t *testing.T) {
	const size = 520<<20 + 512 // two tables, and a cluster that is not whole
	seed := uint64(os.Getpid())
	random := rand.New(rand.NewPCG(seed, 1))
	dir := t.TempDir()
	base, err := os.Create(filepath.Join(dir, "base"))
	must(t, err)
	defer base.Close()
	must(t, base.Truncate(size))
	paths := []string{base.Name()}
	var disk interface {
		ReadAt(p []byte, off int64) (int, error)
	} = Raw{base}
	var top *Overlay
	for layer := range 3 {
		f := overlay(t, dir, fmt.Sprint("overlay", layer), size)
		paths = append([]string{f.Name()}, paths...)
		args := []string{"qemu-io"}
		for i := range 40 {
			at, n := random.Int64N(size/512)*512, (1+random.Int64N(400))*512
			n = min(n, size-at)
			verb := fmt.Sprintf("write -P %d", 1+i+40*layer)
			switch random.IntN(5) {
			case 0:
				verb = "write -z"
			case 1:
				verb = "discard"
			}
			args = append(args, "-c", fmt.Sprintf("%s %d %d", verb, at, n))
		}
		qemu(t, append(args, "json:"+graph(paths...))...)
		must(t, Check(f, size))
		top, err = Open(f, size, disk)
		must(t, err)
		disk = top
	}
	qemu(t, "qemu-img", "convert", "-O", "raw", "json:"+graph(paths...), filepath.Join(dir, "whole"))
	want, err := os.ReadFile(filepath.Join(dir, "whole"))
	must(t, err)
	got := make([]byte, size)
	if n, err := top.ReadAt(got, 0); n != size || err != nil {
		t.Fatalf("seed %d: it reads %d bytes, %v", seed, n, err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("seed %d: we read other bytes than QEMU", seed)
	}
	clear(got)
	data := int64(0)
	must(t, top.Data(func(p []byte, at int64) error { data += int64(copy(got[at:], p)); return nil }))
	if !bytes.Equal(got, want) {
		t.Errorf("seed %d: the data are other bytes than QEMU's", seed)
	}
	if data > 200<<20 {
		t.Errorf("there are %d MiB of data in holes", data>>20)
	}
}

// TestAnOverlayThatNamesAFileIsForeign tries what a VMM could write into the header.
func TestAnOverlayThatNamesAFileIsForeign(t *testing.T) {
	const size = 64 << 20
	be := binary.BigEndian
	for name, change := range map[string]func(head []byte){
		"a base":             func(h []byte) { be.PutUint64(h[8:], 512); be.PutUint32(h[16:], 11); copy(h[512:], "/etc/shadow") },
		"a file for data":    func(h []byte) { be.PutUint64(h[72:], 4) },
		"an extension":       func(h []byte) { be.PutUint32(h[112:], 0x44415441); be.PutUint32(h[116:], 11) },
		"encryption":         func(h []byte) { be.PutUint32(h[32:], 2) },
		"another format":     func(h []byte) { copy(h, "KDMV") },
		"LUKS":               func(h []byte) { copy(h, "LUKS\xba\xbe\x00\x02") },
		"another size":       func(h []byte) { be.PutUint64(h[24:], 1<<40) },
		"other clusters":     func(h []byte) { be.PutUint32(h[20:], 21) },
		"more tables":        func(h []byte) { be.PutUint32(h[36:], 1<<20) },
		"a table anywhere":   func(h []byte) { be.PutUint64(h[40:], 1<<63) },
		"snapshots":          func(h []byte) { be.PutUint32(h[60:], 1) },
		"an old version":     func(h []byte) { be.PutUint32(h[4:], 2) },
		"a longer header":    func(h []byte) { be.PutUint32(h[100:], 4096) },
		"nothing but zeros":  func(h []byte) { clear(h) },
		"an unknown feature": func(h []byte) { be.PutUint64(h[72:], 1<<40) },
	} {
		f := overlay(t, t.TempDir(), "overlay", size)
		must(t, Check(f, size))
		head := make([]byte, 4096)
		_, err := f.ReadAt(head, 0)
		must(t, err)
		change(head)
		_, err = f.WriteAt(head, 0)
		must(t, err)
		if err := Check(f, size); !errors.Is(err, ErrForeign) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Check(overlay(t, t.TempDir(), "other", 2*size), size); !errors.Is(err, ErrForeign) {
		t.Errorf("an overlay of another disk: %v", err)
	}
	for _, size := range []int64{0, -1, MaxSize + 1} {
		if Create(nil, size) == nil {
			t.Errorf("a disk of %d bytes has an overlay", size)
		}
	}
}

// FuzzTables reads overlays with any tables: there is an error or some bytes, and nothing else.
func FuzzTables(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 5, 0, 0}, []byte{0x80, 0, 0, 0, 0, 6, 0, 0})
	f.Add([]byte{255, 255, 255, 255, 255, 255, 255, 255}, []byte{0, 0, 0, 0, 0, 0, 0, 1})
	f.Add([]byte{0, 0, 0, 0, 0, 3, 0, 0}, []byte{0x40, 0, 0, 0, 0, 6, 0, 0})
	f.Fuzz(func(t *testing.T, table, entries []byte) {
		const size = 64 << 20
		file := overlay(t, t.TempDir(), "overlay", size)
		file.WriteAt(table[:min(len(table), cluster)], tableAt)
		file.WriteAt(entries[:min(len(entries), cluster)], 5*cluster)
		o, err := Open(file, size, bytes.NewReader(nil))
		must(t, err)
		p := make([]byte, 4096)
		for _, at := range []int64{0, cluster + 1, size - 100, size, 1 << 40} {
			o.ReadAt(p, at)
		}
		o.Data(func(p []byte, at int64) error {
			if at < 0 || at+int64(len(p)) > size {
				t.Fatalf("%d bytes at %d", len(p), at)
			}
			return nil
		})
	})
}
