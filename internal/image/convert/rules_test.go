package convert

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banger/internal/blob"
	"banger/internal/testing/imagetest"
)

const root0 = "\n\t\t/ directory 0755 0:0 mtime=00000000:00000000\n"

func entryOf(kind byte, name string) entry {
	return entry{Header: tar.Header{Typeflag: kind, Name: name, Mode: 0o644}}
}

func with(e entry, change func(*tar.Header)) entry {
	change(&e.Header)
	return e
}

// promised returns a layer whose stored bytes are different, with the right digests of both.
func promised(stored, plain []byte) layerBlob {
	return imagetest.Blob(stored, blob.Digest(plain), blob.Digest(stored))
}

// TestUnusualLayersAreTakenAsTheSpecificationSays checks layers that are unusual and valid. Other
// tools lose, confuse or refuse some of them.
func TestUnusualLayersAreTakenAsTheSpecificationSays(t *testing.T) {
	good := tarOf(file("f", "x"))
	const f = "\t\t/f regular 0644 0:0 \"x\"\n"
	for name, c := range map[string]struct {
		layers []layerBlob
		want   string
	}{
		"hard link to a symlink": {[]layerBlob{plain(symlink("s", "t"), hardLink("h", "s"))},
			root0 + "\t\t/h symlink 0777 0:0 -> t\n\t\t/s = /h\n"},
		"a link's metadata is the last word": {[]layerBlob{plain(file("f", "x"),
			with(hardLink("h", "f"), func(h *tar.Header) { h.Uid, h.Mode = 7, 0o600 }))},
			root0 + "\t\t/f regular 0600 7:0 \"x\"\n\t\t/h = /f\n"},
		"a link to a lower file that goes in the same layer": {[]layerBlob{plain(file("f", "x")),
			plain(hardLink("h", "f"), file(".wh.f", ""))},
			root0 + "\t\t/h regular 0644 0:0 \"x\"\n"},
		"a link to a lower file that is replaced": {[]layerBlob{plain(file("f", "x")),
			plain(hardLink("h", "f"), file("f", "new"))},
			root0 + "\t\t/f regular 0644 0:0 \"new\"\n\t\t/h regular 0644 0:0 \"x\"\n"},
		"attributes of the root": {[]layerBlob{plain(with(dir("./"), func(h *tar.Header) { h.Uid, h.Mode = 5, 0o711 }))},
			"\n\t\t/ directory 0711 5:0\n"},
		"lost+found as a file": {[]layerBlob{plain(file("lost+found", "x"), file("f", "x"))}, root0 + f},
		"a name that is cleaned": {[]layerBlob{plain(file("./a//b/../f", "x"))},
			root0 + "\t\t/a directory 0755 0:0 mtime=00000000:00000000\n\t\t/a/f regular 0644 0:0 \"x\"\n"},
		"a file with a slash at its end": {[]layerBlob{plain(with(file("f", "x"), func(h *tar.Header) {
			h.Name = "f/."
		}))}, root0 + f},

		"a directory's whiteout before it": {[]layerBlob{plain(dir("d"), file("d/old", "1")),
			plain(file(".wh.d", ""), dir("d"), file("d/new", "2"))},
			root0 + "\t\t/d directory 0755 0:0\n\t\t/d/new regular 0644 0:0 \"2\"\n"},
		"a directory's whiteout behind it": {[]layerBlob{plain(dir("d"), file("d/old", "1")),
			plain(dir("d"), file("d/new", "2"), file(".wh.d", ""))},
			root0 + "\t\t/d directory 0755 0:0\n\t\t/d/new regular 0644 0:0 \"2\"\n"},
		"a file and its own whiteout": {[]layerBlob{plain(file("f", "x"), file(".wh.f", ""))}, root0 + f},
		"an opaque root": {[]layerBlob{plain(file("old", "1"), dir("d"), file("d/old", "1")),
			plain(file(".wh..wh..opq", ""), file("f", "x"))}, root0 + f},
		"an opaque directory that is new": {[]layerBlob{plain(file("d/.wh..wh..opq", ""))},
			root0 + "\t\t/d directory 0755 0:0 mtime=00000000:00000000\n"},
		"a whiteout as a directory": {[]layerBlob{plain(file("f", "x"), file("g", "1")), plain(dir(".wh.g"))},
			root0 + f},
		"a whiteout with content": {[]layerBlob{plain(file("f", "x"), file("g", "1")),
			plain(file(".wh.g", "content"))}, root0 + f},
		"a whiteout through a lower symlink": {[]layerBlob{plain(dir("r"), file("r/f", "1"), symlink("a", "r")),
			plain(file("a/.wh.f", ""))},
			root0 + "\t\t/a symlink 0777 0:0 -> r\n\t\t/r directory 0755 0:0\n"},
		"what aufs left": {[]layerBlob{plain(file(".wh..wh.aufs", ""), dir(".wh..wh.plnk"),
			file(".wh..wh.plnk/1.2", ""), file("f", "x"))}, root0 + f},
		"entries below a whiteout": {[]layerBlob{plain(file("f", "x")), plain(dir(".wh.d"), file(".wh.d/x", "1"))},
			root0 + f},

		"a file, then a directory": {[]layerBlob{plain(file("d", "1"), dir("d"), file("d/f", "x"))},
			root0 + "\t\t/d directory 0755 0:0\n\t\t/d/f regular 0644 0:0 \"x\"\n"},
		"a directory, then a file": {[]layerBlob{plain(dir("f"), file("f/g", "1"), file("f", "x"))}, root0 + f},
		"a lower directory keeps its attributes": {[]layerBlob{plain(with(dir("d"), func(h *tar.Header) {
			h.Uid, h.Gid, h.Mode = 9, 9, 0o700
		})), plain(file("d/f", "x"))},
			root0 + "\t\t/d directory 0700 9:9\n\t\t/d/f regular 0644 0:0 \"x\"\n"},
		"a device 0:0 is a device": {[]layerBlob{plain(file("null", "1")), plain(entryOf(tar.TypeChar, "null"))},
			root0 + "\t\t/null character-special 0644 0:0 dev=00:00\n"},
		"a contiguous file": {[]layerBlob{plain(with(file("f", "x"), func(h *tar.Header) {
			h.Typeflag = tar.TypeCont
		}))}, root0 + f},
		"a global header": {[]layerBlob{stored(append(imagetest.GlobalHeader(), good...))}, root0 + f},
		"what eStargz adds": {[]layerBlob{plain(file("f", "x"), file("stargz.index.json", "{}"),
			file(".prefetch.landmark", "x"), file(".no.prefetch.landmark", "x"))}, root0 + f},
		"an unknown attribute": {[]layerBlob{plain(with(file("f", "x"), func(h *tar.Header) {
			h.PAXRecords = map[string]string{"SCHILY.xattr.odd.x": "1"}
		}))}, root0 + f},
		"a user's on a symlink": {[]layerBlob{plain(with(symlink("s", "t"), func(h *tar.Header) {
			h.PAXRecords = map[string]string{"SCHILY.xattr.user.x": "1"}
		}))}, root0 + "\t\t/s symlink 0777 0:0 -> t\n"},
		// The owners are in debugfs's form.
		"the largest owners": {[]layerBlob{plain(with(file("f", "x"), func(h *tar.Header) {
			h.Uid, h.Gid = 1<<32-2, 1<<31+5
		}))}, root0 + "\t\t/f regular 0644 -2:-2147483643 \"x\"\n"},
		"a time before all": {[]layerBlob{plain(with(file("f", "x"), func(h *tar.Header) {
			h.ModTime = time.Unix(-1e10, 0)
		}))}, root0 + "\t\t/f regular 0644 0:0 mtime=80000000:00000000 \"x\"\n"},
		"a time after all": {[]layerBlob{plain(with(file("f", "x"), func(h *tar.Header) {
			h.ModTime = time.Unix(1e11, 5)
		}))}, root0 + "\t\t/f regular 0644 0:0 mtime=7fffffff:" + lastNanosecond + " \"x\"\n"},
		"gzip with a wrong CRC":  {[]layerBlob{promised(damaged(gzipped(good)), good)}, root0 + f},
		"zeros behind gzip":      {[]layerBlob{promised(append(gzipped(good), make([]byte, 1000)...), good)}, root0 + f},
		"a tar without its end":  {[]layerBlob{stored(good[:1024])}, root0 + f},
		"junk behind a tar":      {[]layerBlob{stored(append(bytes.Clone(good), "junk"...))}, root0 + f},
		"a layer of no byte":     {[]layerBlob{stored(nil), plain(file("f", "x"))}, root0 + f},
		"the same layer twice":   {[]layerBlob{plain(file("f", "x")), plain(file("f", "x"))}, root0 + f},
		"an empty gzip stream":   {[]layerBlob{promised(gzipped(nil), nil), plain(file("f", "x"))}, root0 + f},
		"a name no text can say": {[]layerBlob{plain(file("f", "x"), dir("\"\n\\; rm -rf '"))}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			path, _ := build(t, c.layers...)
			if c.want != "" { // debugfs cannot be asked for some names; the differential tests have them
				wantListing(t, listing(t, path), c.want)
			}
		})
	}
}

// lastNanosecond is the extra field of a clamped time: the two extra bits of the epoch (ext4, inode
// timestamps) and no fraction.
const lastNanosecond = "00000003"

// TestSparseFiles checks that sparse files in all forms of GNU tar keep their content and their
// holes.
func TestSparseFiles(t *testing.T) {
	work := t.TempDir()
	f, err := os.Create(filepath.Join(work, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, at := range []int64{0, 1 << 20, 5<<20 + 17, 64 << 20} {
		if _, err := f.WriteAt([]byte(fmt.Sprint("data at ", at)), at); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	for name, format := range map[string][]string{
		"GNU":     {"--format=gnu"},
		"PAX 0.0": {"--format=pax", "--sparse-version=0.0"},
		"PAX 0.1": {"--format=pax", "--sparse-version=0.1"},
		"PAX 1.0": {"--format=pax", "--sparse-version=1.0"},
	} {
		t.Run(name, func(t *testing.T) {
			packed, err := exec.Command("tar", append(format, "--sparse", "-C", work, "-cf", "-", "sparse")...).Output()
			if err != nil || len(packed) > 1<<20 {
				t.Fatalf("tar gives %d bytes, %v", len(packed), err)
			}
			path, result := build(t, stored(packed))
			if result.Size > 4<<20 {
				t.Errorf("it takes %d bytes: the holes are filled", result.Size)
			}
			out := filepath.Join(t.TempDir(), "out")
			imagetest.Debugfs(t, path, []string{fmt.Sprintf("dump /sparse %s", out)})
			if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, want) {
				t.Errorf("the content differs (%d of %d bytes, %v)", len(got), len(want), err)
			}
		})
	}
}

// TestADepthThatNoPathReaches checks a chain of symlinks that leads deeper than any path. It works,
// and the file system is valid.
func TestADepthThatNoPathReaches(t *testing.T) {
	deep := strings.Repeat("d/", 1900)
	list := []entry{file(deep+"f", "1"), symlink("l0", deep)}
	for i := 1; i < 6; i++ {
		list = append(list, file(fmt.Sprintf("l%d/%sf", i-1, deep[:3600]), "1"),
			symlink(fmt.Sprintf("l%d", i), fmt.Sprintf("l%d/%s", i-1, deep[:3600])))
	}
	build(t, plain(list...))
}

func damaged(p []byte) []byte {
	p[len(p)-6] ^= 1
	return p
}
