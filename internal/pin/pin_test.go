package pin

import "testing"

// TestAThingIsHeldUntilTheLastHoldEnds.
func TestAThingIsHeldUntilTheLastHoldEnds(t *testing.T) {
	var s Set
	a, b := s.Add("image", "a pull"), s.Add("image", "a push")
	other := s.Add("kernel", "a VM")
	want := func(key, by string) {
		t.Helper()
		if got := s.By(key); got != by {
			t.Errorf("%s is held by %q, not by %q", key, got, by)
		}
	}
	want("image", "a pull")
	s.Remove(a)
	s.Remove(a)
	want("image", "a push")
	want("kernel", "a VM")
	s.Remove(b)
	want("image", "")
	s.Remove(other)
	if len(s.holds) != 0 {
		t.Errorf("%d things are remembered", len(s.holds))
	}
}
