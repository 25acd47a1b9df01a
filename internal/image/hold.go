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

// making is a task that makes images. Until it ends, it protects the blobs and the images that it
// holds from removal. These images may have no name yet.
type making struct {
	store *Store
	by    string
	free  func() // releases the blobs
	pins  []*pin.Pin
}

func (s *Store) begin(by string) *making { return &making{store: s, by: by, free: s.blobs.Keep()} }

// hold protects an image, which need not exist yet, until the task ends.
func (m *making) hold(digest string) {
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	m.pins = append(m.pins, m.store.pins.Add(digest, m.by))
}

func (m *making) end() {
	m.store.mu.Lock()
	for _, p := range m.pins {
		m.store.pins.Remove(p)
	}
	m.store.mu.Unlock()
	m.free()
}
