package cli

import (
	"strings"
	"testing"

	"banger/internal/api"
)

// TestDoctorShowsNested: it says who gives the guests virtualisation, or why nobody does.
func TestDoctorShowsNested(t *testing.T) {
	for name, c := range map[string]struct {
		version api.Version
		result  result
		words   string
	}{
		"KVM":               {api.Version{KVM: "usable"}, pass, "by this host's KVM"},
		"emulated":          {api.Version{KVM: "there is no /dev/kvm"}, pass, "emulated"},
		"KVM does not nest": {api.Version{KVM: "usable", NestedProblem: "load it with nested=1"}, warn, "load it with nested=1"},
	} {
		if got := nestedCheck(c.version); got.Name != "nested" || got.Result != c.result || !strings.Contains(got.Detail, c.words) {
			t.Errorf("%s: doctor says %+v", name, got)
		}
	}
}
