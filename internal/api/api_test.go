package api

import (
	"errors"
	"net/http/httptest"
	"strings"
	"testing"

	"banger"
	"banger/internal/api/wire"
	"banger/internal/text"
)

// TestAnErrorIsBoundedAndPrintable answers with text that a guest or a registry could have sent.
func TestAnErrorIsBoundedAndPrintable(t *testing.T) {
	foreign := strings.Repeat("x\x1b\u202e\u009b", 100_000)
	for _, err := range []error{errors.New(foreign),
		banger.Errorf(banger.CodeGuest, "the agent says: %w", errors.New(foreign)),
		banger.Errorf(banger.CodeGuest, "no").WithHint("%s", foreign)} {
		w := httptest.NewRecorder()
		wire.WriteError(w, err)
		body := strings.TrimSuffix(w.Body.String(), "\n")
		if len(body) > 30_000 || strings.ContainsFunc(body, func(r rune) bool { return !text.Printable(r) }) {
			t.Errorf("the answer has %d bytes: %.200q", len(body), body)
		}
	}
}

// TestEventsArePrintable streams text from an image.
func TestEventsArePrintable(t *testing.T) {
	w := httptest.NewRecorder()
	err := stream(w, func(emit banger.Emit) (banger.Event, error) {
		emit(banger.Event{Stage: "pull", Text: "\x1b\u202e\u009b\u200b"})
		return banger.Event{Image: &banger.Image{Reference: "a\u2066b"}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	got := w.Body.String()
	if strings.Count(got, "\n") != 2 ||
		strings.ContainsFunc(got, func(r rune) bool { return r != '\n' && !text.Printable(r) }) ||
		!strings.Contains(got, `a\u2066b`) {
		t.Errorf("the events are %q", got)
	}
}
