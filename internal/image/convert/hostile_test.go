package convert

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/ext4"
	"banger/internal/testing/imagetest"
)

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

// TestAnEntryOfHolesCanBeCanceled matters since reading holes reads no blob.
func TestAnEntryOfHolesCanBeCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := small(ctx, t, &budget{Limits: Limits{}.WithDefaults()},
		imagetest.Holes("f", 60<<30)); !errors.Is(err, context.Canceled) {
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
			left := &budget{Limits: Limits{}.WithDefaults()}
			c.reached(left)
			err := small(context.Background(), t, left, c.layer)
			if (err != nil) != (c.words != "") || err != nil && !strings.Contains(err.Error(), c.words) {
				t.Errorf("the error is %v, not one with %q", err, c.words)
			}
		})
	}
}
