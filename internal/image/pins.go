package image

import (
	"banger/internal/pin"
)

// Pin protects an image from removal until release is called. by says who needs the image, as in "it is needed by the
// push of ...". Pin returns an error of CodeNotFound if there is no such image.
func (s *Store) Pin(digest, by string) (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.Get(digest); err != nil {
		return nil, err
	}
	p := s.pins.Add(digest, by)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.pins.Remove(p)
	}, nil
}

// task is an operation that makes images. Until it ends, it protects the blobs and the images that it
// pins from removal. These images may have no name yet.
type task struct {
	store   *Store
	by      string
	release func() // of the blobs
	pins    []*pin.Pin
}

// begin starts a task. by says what it is, as in "it is needed by the pull of ...". The caller calls end.
func (s *Store) begin(by string) *task { return &task{store: s, by: by, release: s.blobs.Keep()} }

// pin protects an image, which need not exist yet, until the task ends.
func (t *task) pin(digest string) {
	t.store.mu.Lock()
	defer t.store.mu.Unlock()
	t.pins = append(t.pins, t.store.pins.Add(digest, t.by))
}

// end releases everything that the task protects.
func (t *task) end() {
	t.store.mu.Lock()
	for _, p := range t.pins {
		t.store.pins.Remove(p)
	}
	t.store.mu.Unlock()
	t.release()
}
