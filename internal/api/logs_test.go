package api_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"banger/internal/testing/hosttest"
)

// TestViewsThatAreRefused, with the words of the errors.
func TestViewsThatAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(t, "box", false)
	for query, want := range map[string]string{
		"output=true&since=yesterday":  `since is \"yesterday\", but must be a time of RFC 3339`,
		"output=true&until=2026-11-29": `until is \"2026-11-29\", but must be a time of RFC 3339`,
		"output=true&position=-1":      `position is \"-1\", but must be a number of bytes`,
		"output=true&since=2026-11-29T18:30:00.5Z&until=2026-11-29T18:30:00Z": "since is 2026-11-29T18:30:00.5Z, " +
			"which is after until, 2026-11-29T18:30:00Z",
		"position=1":                         "the console has no times and no positions",
		"since=2026-11-29T18:30:00Z":         "the console has no times and no positions",
		"stamps=true":                        "the console has no times and no positions",
		"output=true&position=1&stamps=true": "the output of VM box is on its console, which has no times and no positions",
	} {
		resp, err := w.http().Get("http://banger/v1/vms/box/logs?" + query)
		hosttest.Check(t, err)
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if hosttest.Check(t, err); resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), want) {
			t.Errorf("%s is answered %d %s", query, resp.StatusCode, body)
		}
	}
}
