package image

import (
	"archive/tar"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// richImage returns an image of three layers with every kind of file.
func richImage() []layerBlob {
	su := file("bin/su", "setuid")
	su.Mode, su.Uid, su.Gid = 0o4755, 0, 4
	su.PAXRecords = map[string]string{
		"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"SCHILY.xattr.user.origin":         "here",
		"SCHILY.xattr.trusted.overlay.x":   "dropped",
	}
	sudo := hardLink("bin/sudo", "bin/su")
	sudo.Mode, sudo.Uid, sudo.Gid = su.Mode, su.Uid, su.Gid
	old := file("home/old", "old")
	old.Uid, old.Gid, old.ModTime = 1000, 3000000000, time.Unix(1000000000, 0)
	null := entry{tar.Header{Typeflag: tar.TypeChar, Name: "dev/null", Mode: 0o666, Devmajor: 1, Devminor: 3}, ""}
	disk := entry{tar.Header{Typeflag: tar.TypeBlock, Name: "dev/disk", Mode: 0o600, Devmajor: 8, Devminor: 300}, ""}
	fifo := entry{tar.Header{Typeflag: tar.TypeFifo, Name: "dev/fifo", Mode: 0o600}, ""}
	tmp := dir("tmp")
	tmp.Mode = 0o1777
	return []layerBlob{
		packed(gzipped, dir("./"), dir("bin"), su, sudo, symlink("sbin", "bin"),
			dir("home"), old, dir("dev"), null, disk, fifo, tmp,
			file("gone", "1"), dir("goneDir"), file("goneDir/f", "1"),
			dir("opaque"), file("opaque/below", "1"), file("becomesDir", "1"), dir("becomesLink"), file("becomesLink/f", "1")),
		packed(gzipped, file(".wh.gone", ""), file(".wh.goneDir", ""),
			dir("opaque"), file("opaque/.wh..wh..opq", ""), file("opaque/above", "2"),
			dir("becomesDir"), file("becomesDir/f", "2"), symlink("becomesLink", "home")),
		packed(gzipped, file("sbin/tool", "through the link"), file("home/old", "new")),
	}
}

const richListing = `
		/ directory 0755 0:0
		/becomesDir directory 0755 0:0
		/becomesDir/f regular 0644 0:0 "2"
		/becomesLink symlink 0777 0:0 -> home
		/bin directory 0755 0:0
		/bin/su regular 04755 0:4 "setuid" [user.origin (4) = "here"] [security.capability (20) = 01 00 00 02 00 20 00 00 00 00 00 00 00 00 00 00 00 00 00 00 ]
		/bin/sudo = /bin/su
		/bin/tool regular 0644 0:0 "through the link"
		/dev directory 0755 0:0
		/dev/disk block-special 0600 0:0 dev=08:300
		/dev/fifo FIFO 0600 0:0
		/dev/null character-special 0666 0:0 dev=01:03
		/home directory 0755 0:0
		/home/old regular 0644 0:0 "new"
		/opaque directory 0755 0:0
		/opaque/above regular 0644 0:0 "2"
		/sbin symlink 0777 0:0 -> bin
		/tmp directory 01777 0:0
		`

// TestTheSameImageFromEverySource converts one image read from an OCI layout, an
// OCI archive, a docker archive and a registry.
func TestTheSameImageFromEverySource(t *testing.T) {
	layout := ociDir(t, richImage()...)
	img := read(t, layout)
	want, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	docker := filepath.Join(t.TempDir(), "docker.tar")
	if err := tarball.WriteToFile(docker, name.MustParseReference("test/image:tag"), img); err != nil {
		t.Fatal(err)
	}
	archive := ociTar(t, layout)
	for source, c := range map[string]struct {
		ref        string
		sameDigest bool // docker archives have no manifest of their own
	}{
		"OCI layout":             {"oci:" + layout, true},
		"OCI layout with tag":    {"oci:" + layout + ":tag", true},
		"OCI archive":            {"oci-archive:" + archive, true},
		"OCI archive with a tag": {"oci-archive:" + archive + ":tag", true},
		"docker archive":         {"docker-archive:" + docker, false},
		"registry":               {serve(t, img, nil), true},
	} {
		t.Run(source, func(t *testing.T) {
			s := openStore(t)
			got := ensure(t, s, c.ref)
			if c.sameDigest && got.Digest != want.String() {
				t.Errorf("digest %s, not %s", got.Digest, want)
			}
			if len(got.Layers) != 3 || got.Config.User != "7" || got.Config.WorkingDir != "/w" || len(got.Config.Cmd) != 1 {
				t.Errorf("layers or config are lost: %+v", got)
			}
			fsck(t, s.RootfsPath(got.Digest))
			wantListing(t, listing(t, s.RootfsPath(got.Digest)), richListing)
			wantOnly(t, s, got.Digest)
		})
	}
}

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
		"dir attributes change": {[]layerBlob{plain(dir("d"), file("d/f", "x")), plain(entry{tar.Header{
			Typeflag: tar.TypeDir,
			Name:     "d",
			Mode:     0o700,
			Uid:      5,
		}, ""})},
			rootLine + "\n\t\t/d directory 0700 5:0\n\t\t/d/f regular 0644 0:0 \"x\"\n"},
	} {
		t.Run(name, func(t *testing.T) { wantListing(t, convert(t, c.layers...), c.want) })
	}
}

// TestEveryCompression checks that the first bytes decide and not the media type, which ociDir
// always gives as gzip.
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
			if got := ensure(t, openStore(t), "oci:"+ociDir(t, plain(c.init...))).Systemd; got != c.want {
				t.Errorf("systemd %v, not %v", got, c.want)
			}
		})
	}
}
