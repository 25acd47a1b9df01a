package image

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger"
	"banger/internal/blob"
	"banger/internal/testing/imagetest"
	"banger/internal/testing/processtest"
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

func TestHostileLayersAreRefused(t *testing.T) {
	good := tarOf(file("f", strings.Repeat("content ", 10000)))
	other := blob.Digest([]byte("another"))
	device := entry{Header: tar.Header{Typeflag: tar.TypeChar, Name: "d", Devmajor: 5000}}
	owner := file("f", "")
	owner.Uid = 1<<32 - 1
	xattr := file("f", "")
	xattr.PAXRecords = map[string]string{"SCHILY.xattr.user.big": strings.Repeat("x", 70000)}
	acl := file("f", "")
	acl.PAXRecords = map[string]string{"SCHILY.xattr.system.posix_acl_access": "junk"}
	odd := entry{Header: tar.Header{Typeflag: 'Q', Name: "odd"}}
	twoFiles := append(imagetest.Holes("a", 1<<30), imagetest.Holes("b", 64<<30-1)...)
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
		"file below a file":             {plain(file("f", ""), file("f/g", "")), "not a directory"},
		"root is a file":                {plain(file(".", "")), "root"},
		"whiteout of nothing":           {plain(file(".wh.", "")), "whiteout"},
		"whiteout of the parent":        {plain(file("d/.wh...", "")), "whiteout"},
		"device number too large":       {plain(device), "device number"},
		"owner that means none":         {plain(owner), "owner"},
		"attribute too large":           {plain(xattr), "attribute"},
		"broken ACL":                    {plain(acl), "ACL"},
		"unknown type":                  {plain(odd), "unknown type"},
		"garbage":                       {stored(bytes.Repeat([]byte("garbage "), 1000)), "tar"},
		"file of 65 GiB":                {stored(imagetest.Header("f", 65<<30)), "more than 64 GiB"},
		"file of 8 EiB":                 {stored(imagetest.Header("f", 1<<63-1)), "more than 64 GiB"},
		"two files of 65 GiB by holes":  {stored(twoFiles), "more than 64 GiB"},
		"tar cut off":                   {stored(good[:2000]), "unexpected EOF"},
		"gzip cut off":                  {stored(gzipped(good)[:200]), "unexpected EOF"},
		"gzip with a tail of garbage":   {stored(append(gzipped(good), "garbage garbage"...)), "header"},
		"zstd cut off":                  {stored(zstded(good)[:30]), "EOF"},
		"zstd window of terabytes":      {stored(bomb), "window"},
		"blob is not what was promised": {imagetest.Blob(good, blob.Digest(good), other), "what the digest says"},
		"content is not as promised":    {imagetest.Blob(good, other, blob.Digest(good)), "as the config says"},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			_, err := s.Ensure(context.Background(), "oci:"+ociDir(t, c.layer), "", banger.PullMissing, banger.Discard)
			wantFailure(t, s, err, banger.CodeBadImage, c.words)
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
	blob := imagetest.Holes("blobs/sha256/"+strings.Repeat("0", 64), 1<<50)
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
	processtest.Long(t)
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

// TestOwnersOutOfRange checks that owners out of range are refused and do not become root by an
// overflow.
func TestOwnersOutOfRange(t *testing.T) {
	for _, uid := range []int{-5, 1<<32 - 1, 1 << 32, 1<<32 + 5} {
		t.Run(fmt.Sprint(uid), func(t *testing.T) {
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "f", Uid: uid, Format: tar.FormatGNU}); err != nil {
				t.Fatal(err)
			}
			w.Close()
			s := openStore(t)
			_, err := s.Ensure(context.Background(), "oci:"+ociDir(t, stored(b.Bytes())), "", banger.PullMissing, banger.Discard)
			wantFailure(t, s, err, banger.CodeBadImage, "owner "+fmt.Sprint(uid))
		})
	}
}
