package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"banger"
	"banger/internal/ext4"
)

// wantFailure fails the test unless err has the code and is one sentence that contains the words,
// and the store is empty.
func wantFailure(t *testing.T, s *Store, err error, code banger.Code, words string) {
	t.Helper()
	switch {
	case err == nil:
		t.Fatal("accepted")
	case banger.CodeOf(err) != code:
		t.Errorf("the code of %q is %s, not %s", err, banger.CodeOf(err), code)
	case strings.ContainsAny(err.Error(), "\n\x00") || !strings.Contains(err.Error(), words):
		t.Errorf("the error is %q, not a sentence with %q", err, words)
	}
	wantOnly(t, s)
	if list, err := s.List(); err != nil || len(list) != 0 {
		t.Errorf("the store lists %v, %v", list, err)
	}
}

// TestNoNameLeavesTheImage converts layers whose names try to climb or to leave through symlinks,
// and checks where in the image the file is then.
func TestNoNameLeavesTheImage(t *testing.T) {
	const f = " regular 0644 0:0 \"x\"\n"
	for name, c := range map[string]struct {
		layer []entry
		want  string // of the line of the file
	}{
		"climbing":               {[]entry{file("../../../../tmp/f", "x")}, "/tmp/f"},
		"climbing in the middle": {[]entry{file("a/b/../../../../c/f", "x")}, "/c/f"},
		"absolute":               {[]entry{file("/etc/f", "x")}, "/etc/f"},
		"absolute symlink":       {[]entry{symlink("out", "/tmp"), file("out/f", "x")}, "/tmp/f"},
		"climbing symlink":       {[]entry{symlink("a/out", "../../../../.."), file("a/out/tmp/f", "x")}, "/tmp/f"},
		"symlink in a symlink": {[]entry{dir("d"), symlink("d/up", ".."), symlink("far", "d/up/../d"),
			file("far/up/f", "x")}, "/f"},
		"climbing hard link": {[]entry{file("f", "x"), hardLink("g", "../../f")}, "/f"},
		"double slashes":     {[]entry{file("a//.//f", "x")}, "/a/f"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := convert(t, plain(c.layer...)); !strings.Contains(got, "\n"+c.want+f) {
				t.Errorf("no line %q in\n%s", c.want+f, got)
			}
		})
	}
}

func TestHostileLayersAreRefused(t *testing.T) {
	good := tarOf(file("f", strings.Repeat("content ", 10000)))
	other := digestBytes([]byte("another"))
	device := entry{tar.Header{Typeflag: tar.TypeChar, Name: "d", Devmajor: 5000}, ""}
	owner := file("f", "")
	owner.Uid = 1<<32 - 1
	xattr := file("f", "")
	xattr.PAXRecords = map[string]string{"SCHILY.xattr.user.big": strings.Repeat("x", 70000)}
	acl := file("f", "")
	acl.PAXRecords = map[string]string{"SCHILY.xattr.system.posix_acl_access": "junk"}
	odd := entry{tar.Header{Typeflag: 'Q', Name: "odd"}, ""}
	// A zstd frame header (RFC 8878): magic, no single segment, window of 2^41 bytes.
	bomb := []byte("\x28\xb5\x2f\xfd\x00\xf8\x01\x00\x00")
	for name, c := range map[string]struct {
		layer layerBlob
		words string
	}{
		"hard link to nothing":     {plain(hardLink("a", "b")), "hard link to"},
		"hard link to a directory": {plain(dir("d"), hardLink("a", "d")), "hard link to the directory"},
		"hard link to the root":    {plain(hardLink("a", "/")), "hard link to"},
		"hard link to itself":      {plain(hardLink("a", "a")), "hard link to"},
		"name of 256 bytes":        {plain(file(strings.Repeat("n", 256), "")), "name"},
		"path of 5000 bytes":       {plain(file(strings.Repeat("d/", 2500)+"f", "")), "at most 4096"},
		"symlink of 5000 bytes":    {plain(symlink("a", strings.Repeat("t/", 2500))), "symlink"},
		"symlink to nothing":       {plain(symlink("a", "")), "symlink"},
		"endless symlinks": {plain(symlink("a", "b"), symlink("b", "a"), file("a/f", "")),
			"symlinks on the way"},
		"file below a file":             {plain(file("f", ""), file("f/g", "")), "no directory"},
		"root is a file":                {plain(file(".", "")), "root"},
		"whiteout of nothing":           {plain(file(".wh.", "")), "whiteout"},
		"whiteout of the parent":        {plain(file("d/.wh...", "")), "whiteout"},
		"device number too large":       {plain(device), "device number"},
		"owner that means none":         {plain(owner), "owner"},
		"attribute too large":           {plain(xattr), "attribute"},
		"broken ACL":                    {plain(acl), "ACL"},
		"unknown type":                  {plain(odd), "unknown type"},
		"garbage":                       {stored(bytes.Repeat([]byte("garbage "), 1000)), "tar"},
		"file of 65 GiB":                {stored(header("f", 65<<30)), "more than 64 GiB"},
		"file of 8 EiB":                 {stored(header("f", 1<<63-1)), "more than 64 GiB"},
		"two files of 65 GiB by holes":  {stored(append(holes("a", 1<<30), holes("b", 64<<30-1)...)), "more than 64 GiB"},
		"tar cut off":                   {stored(good[:2000]), "unexpected EOF"},
		"gzip cut off":                  {stored(gzipped(good)[:200]), "unexpected EOF"},
		"gzip with a tail of garbage":   {stored(append(gzipped(good), "garbage garbage"...)), "header"},
		"zstd cut off":                  {stored(zstded(good)[:30]), "EOF"},
		"zstd window of terabytes":      {stored(bomb), "window"},
		"blob is not what was promised": {layerBlob{string(good), digestBytes(good), other}, "what the digest says"},
		"content is not as promised":    {layerBlob{string(good), other, digestBytes(good)}, "as the config says"},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			_, err := s.Ensure(context.Background(), "oci:"+ociDir(t, c.layer), "", banger.PullMissing, banger.Discard)
			wantFailure(t, s, err, banger.CodeBadImage, c.words)
		})
	}
}

// header returns a tar that ends after the header of a file of the given size.
func header(name string, size int64) []byte {
	var buf bytes.Buffer
	if err := tar.NewWriter(&buf).WriteHeader(&tar.Header{
		Name:   name,
		Size:   size,
		Mode:   0o644,
		Format: tar.FormatPAX,
	}); err != nil {
		panic(err)
	}
	return buf.Bytes()
}

// holes returns a sparse entry (PAX format 1.0 of GNU tar) that consists of one hole.
func holes(name string, size int64) []byte {
	sparseMap := make([]byte, 512)
	copy(sparseMap, "0\n")
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	realSize := strconv.FormatInt(size, 10)
	err := w.WriteHeader(
		&tar.Header{Name: name, Size: 512, Mode: 0o644, Format: tar.FormatPAX, PAXRecords: map[string]string{
			"xxx.sparse.major": "1", "xxx.sparse.minor": "0", "xxx.sparse.name": name, "xxx.sparse.realsize": realSize}})
	if err != nil {
		panic(err)
	}
	w.Write(sparseMap)
	w.Flush()
	// The library refuses to write these records, so they are renamed: the same
	// length keeps the PAX header valid.
	return bytes.ReplaceAll(buf.Bytes(), []byte("xxx.sparse"), []byte("GNU.sparse"))
}

func damaged(p []byte) []byte {
	p[len(p)-6] ^= 1
	return p
}

// TestAnEntryOfHolesCanBeCanceled matters since reading holes reads no blob.
func TestAnEntryOfHolesCanBeCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := small(ctx, t, &budget{Limits: Limits{}.orDefaults()},
		holes("f", 60<<30)); !errors.Is(err, context.Canceled) {
		t.Errorf("60 GiB of holes were read to the end: %v", err)
	}
}

// small applies one layer to the smallest possible file system.
func small(ctx context.Context, t *testing.T, limits *budget, layer []byte) error {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "rootfs"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := ext4.New(f, ext4.Options{Size: ext4.MinSize})
	if err != nil {
		t.Fatal(err)
	}
	area := w.Areas(1)[0]
	defer area.Close()
	list, err := readLayer(ctx, bytes.NewReader(layer), area, limits)
	if err != nil {
		return err
	}
	return newTree(w).apply(list)
}

// TestBoundsOfAnImage checks bounds that no real image can reach in a test.
func TestBoundsOfAnImage(t *testing.T) {
	noise := make([]byte, 70<<20)
	rand.Read(noise)
	for name, c := range map[string]struct {
		reached func(*budget)
		layer   []byte
		words   string
	}{
		"entries":      {func(b *budget) { b.entries.Store(1 << 20) }, tarOf(dir("d")), "more than 1048576 entries"},
		"bytes names":  {func(b *budget) { b.nameBytes.Store(maxNameBytes) }, tarOf(dir("d")), "names and attributes"},
		"bytes":        {func(b *budget) { b.bytes.Store(rootfsSize) }, tarOf(file("f", "x")), "more than 64 GiB"},
		"a lower one":  {func(b *budget) { b.Bytes = 10 }, tarOf(file("f", "12345678901")), "more than 10 B"},
		"file system":  {func(*budget) {}, tarOf(file("f", string(noise))), ext4.ErrNoSpace.Error()},
		"none of them": {func(*budget) {}, tarOf(file("f", "x")), ""},
	} {
		t.Run(name, func(t *testing.T) {
			left := &budget{Limits: Limits{}.orDefaults()}
			c.reached(left)
			err := small(context.Background(), t, left, c.layer)
			if (err != nil) != (c.words != "") || err != nil && !strings.Contains(err.Error(), c.words) {
				t.Errorf("the error is %v, not one with %q", err, c.words)
			}
		})
	}
}

func TestSourcesThatAreNoImageAreRefused(t *testing.T) {
	empty := t.TempDir()
	junk := filepath.Join(empty, "junk")
	if err := os.WriteFile(junk, []byte(strings.Repeat("junk", 1000)), 0o644); err != nil {
		t.Fatal(err)
	}
	sparse := filepath.Join(empty, "sparse")
	blob := holes("blobs/sha256/"+strings.Repeat("0", 64), 1<<50)
	if err := os.WriteFile(sparse, blob, 0o644); err != nil {
		t.Fatal(err)
	}
	good := ociDir(t, plain(file("f", "x")))
	for name, c := range map[string]struct{ ref, words string }{
		"no directory":          {"oci:/nonexistent", "no such file"},
		"no layout":             {"oci:" + empty, "no such file"},
		"no such tag":           {"oci:" + good + ":other", "0 images"},
		"no archive":            {"oci-archive:/nonexistent", "no such file"},
		"junk archive":          {"oci-archive:" + junk, "tar"},
		"archive of holes":      {"oci-archive:" + sparse, "larger than the archive"},
		"no such tag in a tar":  {"oci-archive:" + ociTar(t, good) + ":other", "0 images"},
		"junk docker archive":   {"docker-archive:" + junk, "docker archive"},
		"no docker archive":     {"docker-archive:/nonexistent", "no such file"},
		"layout as docker save": {"docker-archive:" + ociTar(t, good), "manifest.json"},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			_, err := s.Ensure(context.Background(), c.ref, "", banger.PullMissing, banger.Discard)
			wantFailure(t, s, err, banger.CodeInvalid, c.words)
		})
	}
}

func TestRegistriesThatFail(t *testing.T) {
	answer := func(status int, body string) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/v2/" {
				w.WriteHeader(status)
				io.WriteString(w, body)
			}
		}))
		t.Cleanup(server.Close)
		return strings.TrimPrefix(server.URL, "http://") + "/image:tag"
	}
	gone := httptest.NewServer(nil)
	gone.Close()
	for name, c := range map[string]struct {
		ref   string
		code  banger.Code
		words string
	}{
		"nobody listens": {strings.TrimPrefix(gone.URL, "http://") + "/image", banger.CodeUnavailable,
			"cannot be reached"},
		"no such image":         {answer(404, ""), banger.CodeNotFound, "has no image"},
		"no access":             {answer(403, ""), banger.CodeDenied, "refuses access"},
		"its own fault":         {answer(501, "sorry"), banger.CodeUnavailable, "cannot read"},
		"a page instead":        {answer(200, "<html>"), banger.CodeBadImage, "not valid"},
		"manifest of no layers": {answer(200, `{"schemaVersion":2}`), banger.CodeBadImage, "neither a config nor"},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			_, err := s.Ensure(context.Background(), c.ref, "", banger.PullMissing, banger.Discard)
			wantFailure(t, s, err, c.code, c.words)
		})
	}
}
