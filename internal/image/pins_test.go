package image

import (
	"context"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"banger"
)

// noVM is a Users function: no VM uses an image.
func noVM(string) string { return "" }

// TestWhatIsHeldStays, and the error says who holds it; everything else goes at once.
func TestWhatIsHeldStays(t *testing.T) {
	s, a, b := sharing(t)
	release, err := s.Pin(a.Digest, "the push of a")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(a.Reference, noVM); banger.CodeOf(err) != banger.CodeConflict ||
		!strings.Contains(err.Error(), "the push of a") {
		t.Errorf("a held image is removed: %v", err)
	}
	if _, err := s.Find(a.Reference); err != nil {
		t.Errorf("it has lost its name: %v", err)
	}
	p, err := s.Prune(true, false, noVM)
	if err != nil || len(p.Images) != 1 || p.Images[0] != b.Digest ||
		len(p.Kept) != 1 || p.Kept[0] != (banger.Kept{Image: a.Digest, Reference: a.Reference, By: "the push of a"}) {
		t.Errorf("a prune gives %+v, %v", p, err)
	}
	release()
	if err := s.Remove(a.Reference, noVM); err != nil {
		t.Error(err)
	}
	if _, err := s.Pin(a.Digest, "nobody"); banger.CodeOf(err) != banger.CodeNotFound {
		t.Errorf("what is gone can be held: %v", err)
	}
}

// TestAPruneDuringALoadTakesNothingOfIt: it removes neither blobs that belong to no image yet, nor
// an image without a name.
func TestAPruneDuringALoadTakesNothingOfIt(t *testing.T) {
	from, a, _ := sharing(t)
	e, err := from.Export([]string{a.Reference})
	if err != nil {
		t.Fatal(err)
	}
	s := openStore(t)
	r, w := io.Pipe()
	go func() { w.CloseWithError(e.Write(context.Background(), w)) }()
	var steps atomic.Int32
	emit := func(banger.Event) { // within the load, of several layers at once
		steps.Add(1)
		if _, err := s.Prune(true, false, noVM); err != nil {
			t.Error(err)
		}
	}
	loaded, err := s.Load(context.Background(), r, emit)
	if err != nil || len(loaded) != 1 || loaded[0].Digest != a.Digest {
		t.Fatalf("the load gives %+v, %v", loaded, err)
	}
	if steps.Load() == 0 {
		t.Error("nothing was pruned meanwhile")
	}
	if _, err := s.Export([]string{a.Digest}); err != nil {
		t.Errorf("the image is not whole: %v", err)
	}
}
