package api

import (
	"encoding/json"
	"reflect"
	"sort"
	"strings"
	"testing"

	"banger"
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
		"Kernel": banger.Kernel{}, "Event": banger.Event{}, "Version": Version{},
		"Forward": banger.Forward{}, "Listener": banger.Listener{}, "Policy": banger.Policy{}, "Rule": banger.Rule{}, "Denial": banger.Denial{}, "SSH": banger.SSH{},
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
