package image

import (
	"banger/internal/pin"
)

// Pin holds an image until release, so that it is not removed. by says who needs it, as in "it is needed by the push
// of ...". It returns an error of CodeNotFound if there is no such image.
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

// making is the making of images. What it uses stays until it ends: the blobs, and the images that it holds, which
// may have no name yet.
type making struct {
	store *Store
	by    string
	free  func() // lets go of the blobs
	pins  []*pin.Pin
}

func (s *Store) begin(by string) *making { return &making{store: s, by: by, free: s.blobs.Keep()} }

// hold holds an image, whether it is there or is about to be.
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
