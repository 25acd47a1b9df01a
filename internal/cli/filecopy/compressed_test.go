package filecopy

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"banger"
)

// ofBzip2 is what bzip2 makes of the text "a tar\n".
const ofBzip2 = "425a6839314159265359673ef63400000151800010400020001400200030cd00c3405d77177245385090673ef634"

// TestCompressedTars reads what docker cp accepts on stdin.
func TestCompressedTars(t *testing.T) {
	t.Parallel()
	packed := func(open func(io.Writer) io.WriteCloser, text string) string {
		var b bytes.Buffer
		w := open(&b)
		io.WriteString(w, text)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	gz := func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }
	xzip := func(w io.Writer) io.WriteCloser { z, _ := xz.NewWriter(w); return z }
	zst := func(w io.Writer) io.WriteCloser { z, _ := zstd.NewWriter(w); return z }
	bz, err := hex.DecodeString(ofBzip2)
	if err != nil {
		t.Fatal(err)
	}
	var named bytes.Buffer
	w := tar.NewWriter(&named)
	w.WriteHeader(&tar.Header{Name: "BZh91AY&SY", Format: tar.FormatUSTAR})
	w.Close()
	long := strings.Repeat("a tar\n", 100_000)
	for name, c := range map[string]struct{ in, out string }{
		"gzip":       {packed(gz, long), long},
		"two gzips":  {packed(gz, "a ") + packed(gz, "tar\n"), "a tar\n"},
		"xz":         {packed(xzip, long), long},
		"zstd":       {packed(zst, long), long},
		"bzip2":      {string(bz), "a tar\n"},
		"plain":      {long, long},
		"nothing":    {"", ""},
		"a bad name": {named.String(), named.String()}, // that of a file in a plain tar
	} {
		r, err := plainTar(strings.NewReader(c.in))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != c.out {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	for name, in := range map[string]string{
		"gzip": packed(gz, long)[:100], "gzip's head": "\x1f\x8b\x08", "xz": packed(xzip, long)[:50],
		"zstd": packed(zst, long)[:20], "bzip2": string(bz[:20]), "not gzip": "\x1f\x8bnothing",
	} {
		r, err := plainTar(strings.NewReader(in))
		if err == nil {
			_, err = io.ReadAll(r)
		}
		if banger.CodeOf(err) != banger.CodeInvalid || !strings.HasPrefix(err.Error(), "the compressed tar on stdin is") {
			t.Errorf("a damaged %s: %v", name, err)
		}
	}
}
