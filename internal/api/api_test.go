package api

import (
	"encoding/json"
	"errors"
	"net/http/httptest"
	"reflect"
	"sort"
	"strings"
	"testing"

	"banger"
	"banger/internal/text"
)

type document struct {
	Paths      map[string]map[string]any `json:"paths"`
	Components struct {
		Schemas map[string]struct {
			Properties map[string]any `json:"properties"`
		} `json:"schemas"`
	} `json:"components"`
}

func readDocument(t *testing.T) document {
	t.Helper()
	var d document
	if err := json.Unmarshal(openAPI, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestRoutesAreExactlyThoseOfTheOpenAPIFile(t *testing.T) {
	var documented, served []string
	for path, methods := range readDocument(t).Paths {
		for m := range methods {
			documented = append(documented, strings.ToUpper(m)+" "+path)
		}
	}
	for _, r := range routes {
		served = append(served, r.method+" "+r.path)
	}
	sort.Strings(documented)
	sort.Strings(served)
	if !reflect.DeepEqual(documented, served) {
		t.Errorf("documented:\n%s\nserved:\n%s", strings.Join(documented, "\n"), strings.Join(served, "\n"))
	}
}

func TestNounsHaveExactlyTheFieldsOfTheOpenAPIFile(t *testing.T) {
	schemas := readDocument(t).Components.Schemas
	for name, noun := range map[string]any{
		"Spec": banger.Spec{}, "Exec": banger.Exec{}, "VM": banger.VM{}, "Image": banger.Image{},
		"Blob": banger.Blob{}, "ImageStep": banger.ImageStep{}, "ImageUsage": banger.ImageUsage{}, "Pruned": banger.Pruned{},
		"Kept":   banger.Kept{},
		"Kernel": banger.Kernel{}, "Event": banger.Event{}, "Version": Version{},
		"Forward": banger.Forward{}, "Listener": banger.Listener{}, "Policy": banger.Policy{}, "Rule": banger.Rule{},
		"Denial": banger.Denial{}, "SSH": banger.SSH{},
		"FileInfo": banger.FileInfo{}, "Stats": banger.Stats{}, "CopyReport": banger.CopyReport{},
	} {
		var documented, have []string
		for p := range schemas[name].Properties {
			documented = append(documented, p)
		}
		typ := reflect.TypeOf(noun)
		for i := range typ.NumField() {
			tag, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			have = append(have, tag)
		}
		sort.Strings(documented)
		sort.Strings(have)
		if !reflect.DeepEqual(documented, have) {
			t.Errorf("%s: documented %v, in Go %v", name, documented, have)
		}
	}
}

// TestAnErrorIsBoundedAndPrintable answers with text that a guest or a registry could have sent.
func TestAnErrorIsBoundedAndPrintable(t *testing.T) {
	foreign := strings.Repeat("x\x1b\u202e\u009b", 100_000)
	for _, err := range []error{errors.New(foreign),
		banger.Errorf(banger.CodeGuest, "the agent says: %w", errors.New(foreign)),
		banger.Errorf(banger.CodeGuest, "no").WithHint("%s", foreign)} {
		w := httptest.NewRecorder()
		writeError(w, err)
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
