package client_test

import (
	"testing"

	"banger"
	"banger/internal/testing/hosttest"
)

// TestTemplatesByTheAPI lists templates and removes them, by the beginning of an id and at once.
func TestTemplatesByTheAPI(t *testing.T) {
	t.Parallel()
	w, ctx := newWorld(t), t.Context()
	if list, err := w.Templates(ctx); err != nil || list == nil || len(list) != 0 {
		t.Errorf("there are %+v, %v", list, err)
	}
	if removed, err := w.PruneTemplates(ctx, false, false); err != nil || removed == nil || len(removed) != 0 {
		t.Errorf("it removes %+v, %v", removed, err)
	}
	for _, id := range []string{"0123456789aa", "0123456789ab", "f123456789ab"} {
		w.h.AddTemplate(id)
	}
	list := ok[[]banger.Template](t)(w.Templates(ctx))
	if len(list) != 3 || list[0].Image != "debian" || list[0].Memory != banger.DefaultMemory {
		t.Errorf("there are %+v", list)
	}
	if err := w.RemoveTemplate(ctx, "0123"); banger.CodeOf(err) != banger.CodeConflict {
		t.Errorf("two have such an id, and it says %v", err)
	}
	hosttest.Check(t, w.RemoveTemplate(ctx, "f"))
	for range 2 { // a dry run removes nothing
		if would, err := w.PruneTemplates(ctx, false, true); err != nil || len(would) != 2 {
			t.Errorf("it would remove %+v, %v", would, err)
		}
	}
	if removed, err := w.PruneTemplates(ctx, false, false); err != nil || len(removed) != 2 {
		t.Errorf("it removes %+v, %v", removed, err)
	}
	w.h.AddTemplate("0123456789aa")
	removed, err := w.PruneTemplates(ctx, true, false)
	if err != nil || len(removed) != 1 || removed[0].ID != "0123456789aa" {
		t.Errorf("it removes %+v, %v", removed, err)
	}
}
