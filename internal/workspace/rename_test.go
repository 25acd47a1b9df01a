package workspace

import "testing"

// TestARenamedFileIsGoneFromItsOldPlace: on both sides, whichever has renamed it.
func TestARenamedFileIsGoneFromItsOldPlace(t *testing.T) {
	user(t, "")
	home := Home{Dir: t.TempDir()}
	repo := repository(t, "seq 30 >old; seq 40 >here; git add .; git commit -qm first")
	record, lower := bring(t, home, Options{Source: repo, Depth: 50})
	c := capture(t, home, record, lower, "mv old new")
	p, err := c.Pull(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := sh(t, repo, "ls"); got != "here\nnew\n" {
		t.Errorf("after a pull, this host has\n%s", got)
	}
	sh(t, repo, "git mv here there")
	s, err := c.Sync(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := s.Removed(); len(got) != 1 || got[0] != "here" {
		t.Errorf("a sync removes %q", got)
	}
}
