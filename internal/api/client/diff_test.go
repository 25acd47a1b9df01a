package client_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"banger"
	"banger/internal/api/client"
	"banger/internal/testing/apitest"
)

// TestCompare: what differs comes apart from the progress, and an error behind it is the call's.
func TestCompare(t *testing.T) {
	for _, last := range []banger.Event{
		{Compared: &banger.Compared{From: "image x", To: "VM box", Changes: 2}},
		{Error: &banger.Error{Code: banger.CodeGuest, Message: "the disks cannot be read"}},
	} {
		var asked banger.Comparison
		c := client.New(apitest.Serve(t, func(w http.ResponseWriter, r *http.Request) {
			json.NewDecoder(r.Body).Decode(&asked)
			for _, e := range []banger.Event{{Stage: "compare", Text: "reading"}, {File: &banger.FileChange{Path: "/a"}},
				{File: &banger.FileChange{Path: "/b"}}, last} {
				json.NewEncoder(w).Encode(e)
			}
		}))
		what := banger.Comparison{From: "before", To: "box", Patch: true}
		var said, paths []string
		done, err := c.Compare(t.Context(), what, func(e banger.Event) { said = append(said, e.Text) },
			func(f banger.FileChange) { paths = append(paths, f.Path) })
		if asked != what || strings.Join(said, " ") != "reading" || strings.Join(paths, " ") != "/a /b" {
			t.Errorf("it asks for %+v, and gets %q and %q", asked, said, paths)
		}
		if last.Error != nil && (banger.CodeOf(err) != banger.CodeGuest || done.Changes != 0) ||
			last.Error == nil && (err != nil || done != *last.Compared) {
			t.Errorf("it is %+v, %v", done, err)
		}
	}
	c := client.New("/nonexistent")
	_, err := c.Compare(t.Context(), banger.Comparison{}, banger.Discard, nil)
	if banger.CodeOf(err) != banger.CodeInvalid {
		t.Errorf("nothing to compare: %v", err)
	}
}
