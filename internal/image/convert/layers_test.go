package convert

import (
	"archive/tar"
	"testing"
	"time"
)

func TestLayersAreAppliedInOrder(t *testing.T) {
	const rootLine = "\n\t\t/ directory 0755 0:0 mtime=00000000:00000000"
	late := file("f", "x")
	late.ModTime = time.Unix(1700000000, 500000000)
	for name, c := range map[string]struct {
		layers []layerBlob
		want   string
	}{
		"no layers":              {nil, rootLine + "\n"},
		"an empty layer":         {[]layerBlob{plain()}, rootLine + "\n"},
		"missing parents appear": {[]layerBlob{plain(file("f", ""))}, rootLine + "\n\t\t/f regular 0644 0:0 \"\"\n"},
		"fractions of a second": {[]layerBlob{plain(late)},
			rootLine + "\n\t\t/f regular 0644 0:0 mtime=6553f100:77359400 \"x\"\n"},
		"the last of two entries": {[]layerBlob{plain(file("f", "1"), file("f", "2"))},
			rootLine + "\n\t\t/f regular 0644 0:0 \"2\"\n"},
		"whiteout of nothing": {[]layerBlob{plain(file(".wh.f", ""), file("d/.wh.f", ""))}, rootLine + "\n"},
		"whiteout before the file": {[]layerBlob{plain(file("f", "1")), plain(file(".wh.f", ""), file("f", "2"))},
			rootLine + "\n\t\t/f regular 0644 0:0 \"2\"\n"},
		"whiteout behind the file": {[]layerBlob{plain(file("f", "1")), plain(file("f", "2"), file(".wh.f", ""))},
			rootLine + "\n\t\t/f regular 0644 0:0 \"2\"\n"},
		"opaque behind the content": {[]layerBlob{plain(dir("d"), file("d/a", "1")),
			plain(dir("d"), file("d/b", "2"), file("d/.wh..wh..opq", ""))},
			rootLine + "\n\t\t/d directory 0755 0:0\n\t\t/d/b regular 0644 0:0 \"2\"\n"},
		"a hidden name comes back": {[]layerBlob{plain(file("f", "1")), plain(file(".wh.f", "")), plain(file("f", "3"))},
			rootLine + "\n\t\t/f regular 0644 0:0 \"3\"\n"},
		"hard link to what follows": {[]layerBlob{plain(hardLink("a", "b"), file("b", "x"))},
			rootLine + "\n\t\t/a regular 0644 0:0 \"x\"\n\t\t/b = /a\n"},
		"hard link to a lower file": {[]layerBlob{plain(file("a", "x")), plain(hardLink("b", "a"))},
			rootLine + "\n\t\t/a regular 0644 0:0 \"x\"\n\t\t/b = /a\n"},
		"a link outlives its target": {[]layerBlob{plain(file("a", "x"), hardLink("b", "a")), plain(file(".wh.a", ""))},
			rootLine + "\n\t\t/b regular 0644 0:0 \"x\"\n"},
		"a link in its target's place": {[]layerBlob{plain(file("a", "x")), plain(hardLink("a/b", "a"))},
			rootLine + "\n\t\t/a directory 0755 0:0 mtime=00000000:00000000\n\t\t/a/b regular 0644 0:0 \"x\"\n"},
		"dir attributes change": {[]layerBlob{plain(dir("d"), file("d/f", "x")), plain(entry{Header: tar.Header{
			Typeflag: tar.TypeDir,
			Name:     "d",
			Mode:     0o700,
			Uid:      5,
		}})},
			rootLine + "\n\t\t/d directory 0700 5:0\n\t\t/d/f regular 0644 0:0 \"x\"\n"},
	} {
		t.Run(name, func(t *testing.T) { wantListing(t, convert(t, c.layers...), c.want) })
	}
}

// TestEveryCompression checks that the first bytes of a layer decide how it is decoded. Its media type is not used.
func TestEveryCompression(t *testing.T) {
	twice := func(p []byte) []byte { return append(gzipped(p[:700]), gzipped(p[700:])...) }
	skippable := func(p []byte) []byte { return append([]byte("\x50\x2a\x4d\x18\x02\x00\x00\x00zz"), zstded(p)...) }
	for name, pack := range map[string]func([]byte) []byte{
		"plain": func(p []byte) []byte { return p }, "gzip": gzipped, "zstd": zstded,
		"gzip in two members": twice, "zstd behind a skippable frame": skippable,
	} {
		t.Run(name, func(t *testing.T) {
			wantListing(t, convert(t, packed(pack, dir("./"), file("f", "x"))), `
		/ directory 0755 0:0
		/f regular 0644 0:0 "x"
		`)
		})
	}
}

func TestSystemdIsRecognised(t *testing.T) {
	for name, c := range map[string]struct {
		init []entry
		want bool
	}{
		"no init":      {nil, false},
		"another init": {[]entry{file("sbin/init", "busybox")}, false},
		"through two links": {[]entry{symlink("sbin", "usr/sbin"), symlink("usr/sbin/init", "../lib/systemd/systemd"),
			file("usr/lib/systemd/systemd", "")}, true},
		"absolute link": {[]entry{symlink("sbin/init", "/lib/systemd/systemd"), file("lib/systemd/systemd", "")}, true},
		"dangling link": {[]entry{symlink("sbin/init", "/lib/systemd/systemd")}, false},
		"endless link":  {[]entry{symlink("sbin/init", "init")}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if _, got := build(t, plain(c.init...)); got.Systemd != c.want {
				t.Errorf("systemd %v, not %v", got.Systemd, c.want)
			}
		})
	}
}
