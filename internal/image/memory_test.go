//go:build !race

package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime/debug"
	"strconv"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"banger"
	"banger/internal/blob"
	"banger/internal/testing/imagetest"
)

// entries returns how many entries TestMemoryOfManyEntries makes: a part of the limit in every run, all
// of them if BANGER_ENTRIES asks for it.
func entries() int {
	if n, err := strconv.Atoi(os.Getenv("BANGER_ENTRIES")); err == nil {
		return n
	}
	return 100_000
}

// TestConvertInAProcessOfItsOwn is the process that is measured; alone it does nothing.
func TestConvertInAProcessOfItsOwn(t *testing.T) {
	ref, dir := os.Getenv("BANGER_CONVERT_REF"), os.Getenv("BANGER_CONVERT_DIR")
	if ref == "" {
		return
	}
	debug.SetMemoryLimit(HeapLimit) // as the daemon does
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Ensure(context.Background(), ref, "", banger.PullAlways, banger.Discard); err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	os.Stdout.Write(status)
}

// converted converts in a new process and returns its peak memory in MiB.
func converted(t *testing.T, ref string) int64 {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestConvertInAProcessOfItsOwn$")
	cmd.Env = append(os.Environ(), "BANGER_CONVERT_REF="+ref, "BANGER_CONVERT_DIR="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// wait4(2) would also count the memory of this process before exec.
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(out)
	if m == nil {
		t.Fatalf("no VmHWM in %s", out)
	}
	kib, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib >> 10
}

// streamed returns a gzip layer that a function writes.
func streamed(t *testing.T, write func(*tar.Writer) error) layerBlob {
	t.Helper()
	var stored bytes.Buffer
	plain := sha256.New()
	z, err := gzip.NewWriterLevel(&stored, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(io.MultiWriter(z, plain))
	for _, do := range []func() error{func() error { return write(w) }, w.Close, z.Close} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	return imagetest.Blob(stored.Bytes(), blob.DigestOf(plain), blob.Digest(stored.Bytes()))
}

// TestMemoryOfManyEntries checks that the largest number of entries, each with its own attribute,
// takes less than 512 MiB.
func TestMemoryOfManyEntries(t *testing.T) {
	n := entries()
	layer := streamed(t, func(w *tar.Writer) error {
		for i := range n {
			h := &tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("d%d/file-%d", i%1000, i), Mode: 0o644,
				ModTime:    time.Unix(int64(i), 0),
				PAXRecords: map[string]string{"SCHILY.xattr.user.n": strconv.Itoa(i)}, Format: tar.FormatPAX}
			if err := w.WriteHeader(h); err != nil {
				return err
			}
		}
		return nil
	})
	got := converted(t, "oci:"+ociDir(t, layer))
	t.Logf("%d entries: %d MiB", n, got)
	if limit := int64(64 + 448*n/1_000_000); got > limit {
		t.Errorf("%d entries take %d MiB, more than %d", n, got, limit)
	}
}

// TestOneEntryTooMany checks that the error for one entry more than the limit names that entry.
func TestOneEntryTooMany(t *testing.T) {
	s, err := Open(t.TempDir(), Options{Limits: Limits{Entries: 1000}})
	if err != nil {
		t.Fatal(err)
	}
	layer := streamed(t, func(w *tar.Writer) error {
		for i := range 1001 {
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprint("f", i), Mode: 0o644}); err != nil {
				return err
			}
		}
		return nil
	})
	_, err = s.Ensure(context.Background(), "oci:"+ociDir(t, layer), "", banger.PullMissing, banger.Discard)
	wantFailure(t, s, err, banger.CodeBadImage, "more than 1000 entries")
}
