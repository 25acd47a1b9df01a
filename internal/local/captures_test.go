package local

import (
	"testing"
	"testing/synctest"
	"time"

	"banger"
	"banger/internal/workspace"
)

// keep adds a capture of the workspace w of the VM box.
func keep(t *testing.T, c *captures) string {
	t.Helper()
	h := &held{vm: "box", name: "w", capture: &workspace.Capture{}}
	if err := c.add(h); err != nil {
		t.Fatal(err)
	}
	return h.id
}

// isOpen reports whether a capture is open, and uses it thereby.
func isOpen(c *captures, id string) bool {
	_, done, err := c.begin("box", "w", id)
	if err == nil {
		done()
	}
	return err == nil
}

// TestCapturesAreBounded: of too many, the one that was not used for the longest time goes.
func TestCapturesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c captures
		defer c.close()
		var ids []string
		for range maxCaptures {
			ids = append(ids, keep(t, &c))
			time.Sleep(time.Second)
		}
		if !isOpen(&c, ids[0]) {
			t.Fatal("the first one is not open")
		}
		keep(t, &c)
		if isOpen(&c, ids[1]) || !isOpen(&c, ids[0]) || !isOpen(&c, ids[2]) {
			t.Error("another one than the second went")
		}
	})
}

// TestCapturesInUseStay: with all of them in use there is no room for another one.
func TestCapturesInUseStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c captures
		defer c.close()
		for range maxCaptures {
			_, done, err := c.begin("box", "w", keep(t, &c))
			if err != nil {
				t.Fatal(err)
			}
			defer done()
		}
		err := c.add(&held{vm: "box", name: "w", capture: &workspace.Capture{}})
		if banger.CodeOf(err) != banger.CodeUnavailable {
			t.Errorf("one more: %v", err)
		}
	})
}

// TestCapturesCloseWithoutUse: a capture is open for as long as it is used now and then.
func TestCapturesCloseWithoutUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c captures
		defer c.close()
		id := keep(t, &c)
		for range 3 {
			time.Sleep(idleTime - time.Second)
			if !isOpen(&c, id) {
				t.Fatal("it is closed before its time")
			}
		}
		_, done, err := c.begin("box", "w", id)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * idleTime) // of a long request
		done()
		if !isOpen(&c, id) {
			t.Fatal("it is closed while it is used")
		}
		time.Sleep(idleTime)
		synctest.Wait()
		if isOpen(&c, id) {
			t.Error("it is open after its time")
		}
	})
}

// TestACaptureIsFoundWhereItBelongs: not by another VM or workspace, and not after it was dropped.
func TestACaptureIsFoundWhereItBelongs(t *testing.T) {
	var c captures
	defer c.close()
	id := keep(t, &c)
	for _, at := range [][2]string{{"other", "w"}, {"box", "other"}, {"", ""}} {
		if _, _, err := c.begin(at[0], at[1], id); banger.CodeOf(err) != banger.CodeNotFound {
			t.Errorf("%v: %v", at, err)
		}
	}
	if err := c.drop("box", "w", id); err != nil {
		t.Error(err)
	}
	if err := c.drop("box", "w", id); banger.CodeOf(err) != banger.CodeNotFound {
		t.Errorf("dropped twice: %v", err)
	}
}
