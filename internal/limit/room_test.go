package limit

import (
	"strings"
	"testing"

	"banger"
)

// TestAnEmulatorIsNoBoundary warns those who want to run what nobody has read, and nobody else.
func TestAnEmulatorIsNoBoundary(t *testing.T) {
	for _, untrusted := range []bool{true, false} {
		for _, emulated := range []bool{true, false} {
			said := ""
			err := Host{Emulated: emulated}.Check(banger.Spec{Untrusted: untrusted},
				func(e banger.Event) { said += e.Stage + ": " + e.Text })
			if err != nil {
				t.Fatal(err)
			}
			if warned := strings.HasPrefix(said, "warning: the VM is emulated"); warned != (untrusted && emulated) {
				t.Errorf("untrusted %v, emulated %v: %q", untrusted, emulated, said)
			}
		}
	}
}
