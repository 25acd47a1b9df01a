package library_test

import (
	"context"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"banger"
	"banger/internal/image"
	"banger/internal/library"
)

// machines are the VMs of the test.
type machines []banger.VM

func (m machines) List(keep func(banger.VM) bool) (list []banger.VM) {
	for _, vm := range m {
		if keep(vm) {
			list = append(list, vm)
		}
	}
	return list
}

func (m machines) Changes(context.Context, string) (banger.VM, io.ReadCloser, error) {
	return banger.VM{}, nil, banger.Errorf(banger.CodeNotFound, "there is no such VM")
}

// imageAt writes an OCI layout with an image without files, and returns its reference.
func imageAt(t *testing.T) (ref string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "oci")
	img, err := mutate.AppendLayers(empty.Image, static.NewLayer(make([]byte, 1024), types.OCIUncompressedLayer))
	check(t, err)
	p, err := layout.Write(dir, empty.Index)
	check(t, err)
	check(t, p.AppendImage(img))
	return "oci:" + dir
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestAnImageStaysWhileSomebodyNeedsIt: first a VM that is being created, and then a VM that names it.
func TestAnImageStaysWhileSomebodyNeedsIt(t *testing.T) {
	store, err := image.Open(t.TempDir(), image.Options{})
	check(t, err)
	defer store.Close()
	ref := imageAt(t)
	l := library.New(library.Options{Images: store, VMs: machines{}})
	img, release, err := l.UseImage(t.Context(), ref, "", banger.PullMissing, "the creation of VM box", banger.Discard)
	check(t, err)
	wantKept := func(l *library.Library, by string) {
		t.Helper()
		if err := l.RemoveImage(ref); banger.CodeOf(err) != banger.CodeConflict || !strings.Contains(err.Error(), by) {
			t.Errorf("it is removed: %v", err)
		}
		p, err := l.PruneImages(true, false)
		if err != nil || len(p.Images) > 0 || len(p.Kept) != 1 || p.Kept[0].By != by {
			t.Errorf("a prune gives %+v, %v", p, err)
		}
	}
	wantKept(l, "the creation of VM box")
	release()
	wantKept(library.New(library.Options{Images: store, VMs: machines{{Name: "box", ImageDigest: img.Digest}}}), "VM box")
	check(t, l.RemoveImage(ref))
	if list, err := l.Images(); err != nil || len(list) > 0 {
		t.Errorf("there are still %+v, %v", list, err)
	}
}
