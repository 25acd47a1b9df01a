package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"

	"banger/internal/blob"
)

// refsFile is the file with the references of a store.
const refsFile = "references.json"

// reference is the meaning of a name.
type reference struct {
	Digest string `json:"digest"`          // of the image's manifest
	Named  string `json:"named,omitempty"` // what the registry's tag named: Digest, or an index that contains it
}

// UnmarshalJSON also reads the form of the first version, which is only the digest.
func (r *reference) UnmarshalJSON(data []byte) error {
	if bytes.HasPrefix(data, []byte(`"`)) {
		return json.Unmarshal(data, &r.Digest)
	}
	type plain reference
	return json.Unmarshal(data, (*plain)(r))
}

// references are the names of a store's images, with a file that keeps them. The store's mutex guards them.
type references struct {
	file   string
	byName map[string]reference // replaced and never changed
}

// openReferences reads the references in file. A file that does not exist means that there are none.
func openReferences(file string) (*references, error) {
	r := &references{file: file, byName: map[string]reference{}}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &r.byName)
	}
	return r, err
}

// change replaces the references by what edit makes of a copy of them, durably or not at all.
func (r *references) change(edit func(byName map[string]reference)) error {
	next := maps.Clone(r.byName)
	edit(next)
	err := blob.WriteJSON(r.file, next)
	if err == nil {
		r.byName = next
	}
	return err
}

// allReferences returns all references. The caller must not change the result.
func (s *Store) allReferences() map[string]reference {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refs.byName
}

// meaning returns what a normalised name means. It reports false if the name means nothing.
func (s *Store) meaning(name string) (reference, bool) {
	r, ok := s.allReferences()[name]
	return r, ok
}

// refer sets the meaning of name, durably or not at all.
func (s *Store) refer(name string, r reference) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.Get(r.Digest); err != nil {
		return err // it was removed meanwhile
	}
	return s.refs.change(func(byName map[string]reference) { byName[name] = r })
}
