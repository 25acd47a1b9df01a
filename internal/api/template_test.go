package api_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"banger"
	"banger/internal/testing/hosttest"
)

// addTemplate makes a template on the host, with an image that is not there.
func addTemplate(t *testing.T, h *hosttest.Host, id string) {
	t.Helper()
	dir := filepath.Join(h.Path("state"), "templates", "ready", id)
	hosttest.Check(t, os.MkdirAll(dir, 0o700))
	about := fmt.Sprintf(`{"shape":"%scd","id":"%[1]s","image":"debian","image_digest":"sha256:0","kernel":"test",`+
		`"vmm":"memory 1.0","cpus":1,"memory":536870912,"network":"user","size":4096,`+
		`"created_at":"2026-11-29T00:00:00Z"}`, id)
	hosttest.Check(t, os.WriteFile(filepath.Join(dir, "template.json"), []byte(about), 0o600))
}

// TestTemplatesByTheAPI lists templates and removes them, by the beginning of an id and at once.
func TestTemplatesByTheAPI(t *testing.T) {
	t.Parallel()
	w, ctx := newWorld(t), t.Context()
	if list, err := w.Templates(ctx); err != nil || list == nil || len(list) != 0 {
		t.Errorf("there are %+v, %v", list, err)
	}
	if removed, err := w.PruneTemplates(ctx, false); err != nil || removed == nil || len(removed) != 0 {
		t.Errorf("it removes %+v, %v", removed, err)
	}
	for _, id := range []string{"0123456789aa", "0123456789ab", "f123456789ab"} {
		addTemplate(t, w.h, id)
	}
	list := ok[[]banger.Template](t)(w.Templates(ctx))
	if len(list) != 3 || list[0].Image != "debian" || list[0].Memory != banger.DefaultMemory {
		t.Errorf("there are %+v", list)
	}
	if err := w.RemoveTemplate(ctx, "0123"); banger.CodeOf(err) != banger.CodeConflict {
		t.Errorf("two have such an id, and it says %v", err)
	}
	hosttest.Check(t, w.RemoveTemplate(ctx, "f"))
	if removed, err := w.PruneTemplates(ctx, false); err != nil || len(removed) != 2 {
		t.Errorf("it removes %+v, %v", removed, err)
	}
	addTemplate(t, w.h, "0123456789aa")
	if removed, err := w.PruneTemplates(ctx, true); err != nil || len(removed) != 1 || removed[0].ID != "0123456789aa" {
		t.Errorf("it removes %+v, %v", removed, err)
	}
}
