package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/archive/pax"
)

// tarOf writes entries as another program would. A regular file contains "evil".
func tarOf(entries ...tar.Header) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if h.Typeflag == tar.TypeReg {
			h.Size = 4
		}
		h.Format = tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			panic(err)
		}
		if h.Typeflag == tar.TypeReg {
			io.WriteString(w, "evil")
		}
	}
	w.Close()
	return b.Bytes()
}

func file(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name} }
func dir(name string) tar.Header  { return tar.Header{Typeflag: tar.TypeDir, Name: name + "/"} }
func symlink(name, to string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
}
func hardLink(name, to string) tar.Header {
	return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}
}

// marked marks a file as one that has several names, as Write does.
func marked(h tar.Header) tar.Header {
	h.PAXRecords = map[string]string{"comment": "banger links=9"}
	return h
}

// outside is a destination and, beside it, files that must never change.
type outside struct{ dst, kept, before string }

func newOutside(t testing.TB) outside {
	base := t.TempDir()
	o := outside{dst: filepath.Join(base, "dst"), kept: filepath.Join(base, "kept")}
	must(t, os.Mkdir(o.dst, 0o755))
	must(t, os.MkdirAll(filepath.Join(o.kept, "sub"), 0o700))
	must(t, os.WriteFile(filepath.Join(o.kept, "secret"), []byte("secret"), 0o600))
	must(t, os.WriteFile(filepath.Join(o.dst, "mine"), []byte("mine"), 0o600))
	must(t, os.Mkdir(filepath.Join(o.dst, "full"), 0o755))
	must(t, os.WriteFile(filepath.Join(o.dst, "full/file"), nil, 0o600))
	must(t, os.Symlink("../kept", filepath.Join(o.dst, "way")))
	must(t, os.Symlink("../kept/secret", filepath.Join(o.dst, "to")))
	o.before = describe(t, o.kept)
	return o
}

// check checks that nothing outside has changed and that no temporary file is left.
func (o outside) check(t testing.TB) {
	t.Helper()
	if now := describe(t, o.kept); now != o.before {
		t.Errorf("outside of the destination is now\n%s\nnot\n%s", now, o.before)
	}
	if in := describe(t, o.dst); strings.Contains(in, ".banger-cp-") {
		t.Errorf("a temporary file is left:\n%s", in)
	}
}

// holes returns a sparse entry with the given map and size and the given amount of data.
func holes(sparseMap string, size, data int64) []byte {
	h := pax.Header{
		Kind:     pax.KindFile,
		Name:     "f",
		Mode:     0o644,
		Sparse:   true,
		RealSize: size,
		Size:     int64(pax.BlockSize) + data,
	}
	b, err := h.Encode()
	if err != nil {
		panic(err)
	}
	m := make([]byte, pax.BlockSize)
	copy(m, sparseMap)
	b = append(append(b, m...), make([]byte, (data+511)&^511)...)
	return append(b, make([]byte, 2*pax.BlockSize)...)
}

func TestHostileArchivesAreRefused(t *testing.T) {
	long := strings.Repeat("d/", 2047) + "f"
	device := tar.Header{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3}
	good := tarOf(file("f"))
	broken := bytes.Clone(good)
	broken[10] ^= 1
	for name, c := range map[string]struct {
		data  []byte
		words string
	}{
		"absolute name":               {tarOf(file("/kept/secret")), "absolute name"},
		"climbing":                    {tarOf(file("../kept/secret")), `".."`},
		"climbing within":             {tarOf(file("full/../../kept/secret")), `".."`},
		"climbing directory":          {tarOf(dir("..")), `".."`},
		"through a symlink of its":    {tarOf(symlink("out", "../kept"), file("out/secret")), "behind a symlink"},
		"absolute symlink of its":     {tarOf(symlink("out", "/tmp"), dir("out/d")), "behind a symlink"},
		"through a symlink that is":   {tarOf(file("way/secret")), "behind a symlink"},
		"directory over a symlink":    {tarOf(dir("way"), file("way/secret")), "something else"},
		"making below a symlink":      {tarOf(file("way/new/deep/file")), "behind a symlink"},
		"symlink in a symlink":        {tarOf(dir("d"), symlink("d/up", ".."), file("d/up/d/up/f")), "behind a symlink"},
		"hard link outside":           {tarOf(hardLink("l", "../kept/secret")), `".."`},
		"hard link to an absolute":    {tarOf(hardLink("l", "/etc/passwd")), "absolute name"},
		"hard link through a symlink": {tarOf(hardLink("l", "way/secret")), "behind a symlink"},
		"hard link by a symlink": {tarOf(marked(symlink("s", "../kept")), hardLink("l", "s/secret")),
			"behind a symlink"},
		"hard link to what was there": {tarOf(hardLink("l", "mine")), "did not make"},
		"hard link to nothing":        {tarOf(hardLink("l", "nothing")), "not there"},
		"hard link to itself":         {tarOf(hardLink("l", "l")), "not there"},
		"hard link to a directory":    {tarOf(dir("d"), hardLink("l", "d")), "did not make"},
		"hard link to the root":       {tarOf(hardLink("l", ".")), "did not make"},
		"file over a directory":       {tarOf(file("full")), "place of a directory"},
		"directory over a file":       {tarOf(dir("mine")), "something else"},
		"file below a file":           {tarOf(file("mine/f")), "not a directory"},
		"root is a file":              {tarOf(file(".")), "place of the destination"},
		"symlink to nothing":          {tarOf(symlink("s", "")), "to nothing"},
		"device node":                 {tarOf(device), `"null" is a device node`},
		"fifo":                        {tarOf(tar.Header{Typeflag: tar.TypeFifo, Name: "pipe"}), `"pipe" is a fifo`},
		"name of 5000 bytes":          {tarOf(file(strings.Repeat("n/", 2500) + "n")), "more than 4096 bytes"},
		"too deep":                    {tarOf(file(long)), "1000 directories"},
		"part of 256 bytes":           {tarOf(file(strings.Repeat("n", 256))), "too long"},
		"unknown type":                {tarOf(tar.Header{Typeflag: 'Q', Name: "odd"}), "unknown type"},
		"broken checksum":             {broken, "one of its headers is not valid"},
		"compressed":                  {append([]byte("\x1f\x8b"), make([]byte, 600)...), "compressed"},
		"cut off in a header":         {good[:300], "its end is missing"},
		"cut off in a file":           {good[:514], "its end is missing"},
		"cut off between entries":     {good[:1024], "its end is missing"},
		"nothing at all":              {nil, "its end is missing"},
		"map of holes overlapping":    {holes("2\n0\n10\n5\n10\n", 100, 20), "contradicts"},
		"map beyond the end":          {holes("1\n90\n20\n", 100, 20), "contradicts"},
		"map of more than there is":   {holes("1\n0\n100\n", 100, 20), "contradicts"},
		"map of less than there is":   {holes("1\n0\n10\n", 100, 20), "more data"},
		"map of a billion pieces":     {holes("1000000000\n", 100, 20), "over the limit"},
		"map of letters":              {holes("x\n", 100, 20), "broken map"},
		"map without an end":          {holes(strings.Repeat("1\n", 256), 100, 0), "map"},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOutside(t)
			_, err := Extract(context.Background(), bytes.NewReader(c.data), o.dst, ExtractOptions{Into: true, Owners: true})
			if err == nil || banger.CodeOf(err) == banger.CodeInternal || !strings.Contains(err.Error(), c.words) ||
				strings.ContainsAny(err.Error(), "\n\x00") {
				t.Errorf("the error is %v of code %s, not a sentence with %q", err, banger.CodeOf(err), c.words)
			}
			o.check(t)
		})
	}
}

// TestOnlyWhatWasAskedForIsWritten checks that what a VM sends must be what was requested: no other
// file of the destination is touched.
func TestOnlyWhatWasAskedForIsWritten(t *testing.T) {
	for name, c := range map[string]struct {
		data  []byte
		words string
	}{
		"another file":           {tarOf(file("mine")), "not what was asked for"},
		"a file beside it":       {tarOf(dir("want"), file("mine")), "outside"},
		"a name that starts so":  {tarOf(dir("want"), file("wanted")), "outside"},
		"climbing out of it":     {tarOf(dir("want"), file("want/../mine")), `".."`},
		"content instead of it":  {tarOf(dir("."), file("mine")), "not what was asked for"},
		"hard link beside it":    {tarOf(dir("want"), hardLink("want/l", "mine")), "outside"},
		"a path of several":      {tarOf(file("want/deep")), "not what was asked for"},
		"nothing":                {make([]byte, 1024), "empty"},
		"symlink in place of it": {tarOf(symlink("want", "../kept"), file("want/secret")), "to come alone"},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOutside(t)
			_, err := Extract(context.Background(), bytes.NewReader(c.data), o.dst, ExtractOptions{Name: "want"})
			if err == nil || !strings.Contains(err.Error(), c.words) {
				t.Errorf("the error is %v, not a sentence with %q", err, c.words)
			}
			if data, err := os.ReadFile(filepath.Join(o.dst, "mine")); string(data) != "mine" {
				t.Errorf("the neighbour is %q, %v", data, err)
			}
			o.check(t)
		})
	}
}

// TestTheLaterEntryWins checks that the later of two entries with one name wins, and is never
// written through the earlier one.
func TestTheLaterEntryWins(t *testing.T) {
	o := newOutside(t)
	data := tarOf(symlink("a", "../kept/secret"), file("a"), file("b"), symlink("b", "../kept/secret"), file("to"),
		file("mine"))
	_, err := Extract(context.Background(), bytes.NewReader(data), o.dst, ExtractOptions{Into: true})
	must(t, err)
	for name, want := range map[string]string{"a": "evil", "b": "secret", "to": "evil", "mine": "evil"} {
		if got, err := os.ReadFile(filepath.Join(o.dst, name)); string(got) != want {
			t.Errorf("%s is %q, %v", name, got, err)
		}
	}
	o.check(t)
}

// TestARaceWithASymlinkLeadsNowhere checks a process that replaces a directory with a symlink and
// back, over and over. No entry gets outside: each is written inside or refused.
func TestARaceWithASymlinkLeadsNowhere(t *testing.T) {
	o := newOutside(t)
	at := func(name string) string { return filepath.Join(o.dst, name) }
	must(t, os.Mkdir(at("flip"), 0o755))
	must(t, os.Symlink("../kept", at("trap")))
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, at("flip"), unix.AT_FDCWD, at("trap"), unix.RENAME_EXCHANGE)
			}
		}
	}()
	data := tarOf(dir("flip"), file("flip/secret"), dir("flip/sub"), file("flip/sub/f"), marked(file("flip/x")),
		hardLink("flip/y", "flip/x"),
		dir("other"), dir("flip"), symlink("flip/secret", "gone"), file("flip/new/deep"))
	written, refused := 0, 0
	for range 1500 {
		_, err := Extract(context.Background(), bytes.NewReader(data), o.dst, ExtractOptions{Into: true, Owners: true})
		if err == nil {
			written++
		} else {
			refused++
		}
	}
	close(stop)
	<-stopped
	o.check(t)
	if refused == 0 {
		t.Logf("the race was never lost in %d rounds", written)
	}
}

// FuzzExtract extracts any bytes and checks that nothing outside changes.
func FuzzExtract(f *testing.F) {
	f.Add(tarOf(dir("d"), marked(file("d/f")), hardLink("d/g", "d/f"), symlink("s", "../kept"), file("s/secret")), true)
	f.Add(tarOf(symlink("want", "../kept"), file("want/x")), false)
	f.Add(holes("1\n0\n20\n", 100, 20), true)
	f.Add(archived(f, everyKind(f), WriteOptions{Name: "."}), true)

	f.Fuzz(func(t *testing.T, data []byte, into bool) {
		o := newOutside(t)
		Extract(context.Background(), bytes.NewReader(data), o.dst, ExtractOptions{Into: into, Owners: true, Foreign: into})
		filepath.WalkDir(o.dst, func(at string, d os.DirEntry, err error) error { // for the test's own cleanup and eyes
			if d != nil && d.IsDir() {
				os.Chmod(at, 0o700)
			}
			return nil
		})
		if now := describe(t, o.kept); now != o.before {
			t.Errorf("outside of the destination is now\n%s\nnot\n%s", now, o.before)
		}
	})
}
