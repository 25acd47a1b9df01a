// Package pin holds things in a store while somebody uses them, so the store removes everything else meanwhile. It must
// not know what the things are.
package pin

import "slices"

// Set is what is held, and by whom. Its owner's lock guards it: the one under which the owner removes things. The zero
// value is empty.
type Set struct {
	holds map[string][]*hold
}

type hold struct{ by string }

// Add holds the thing called key. by says who holds it, as in "it is held by ...". What Add returns is to be given to
// Remove.
func (s *Set) Add(key, by string) *Pin {
	if s.holds == nil {
		s.holds = map[string][]*hold{}
	}
	h := &hold{by}
	s.holds[key] = append(s.holds[key], h)
	return &Pin{key, h}
}

// Pin is one hold of one thing.
type Pin struct {
	key  string
	hold *hold
}

// Remove ends a hold. The second time it does nothing.
func (s *Set) Remove(p *Pin) {
	left := slices.DeleteFunc(s.holds[p.key], func(h *hold) bool { return h == p.hold })
	if len(left) == 0 {
		delete(s.holds, p.key)
		return
	}
	s.holds[p.key] = left
}

// By returns who holds the thing called key, the first first; "" if nobody does.
func (s *Set) By(key string) string {
	if list := s.holds[key]; len(list) > 0 {
		return list[0].by
	}
	return ""
}
