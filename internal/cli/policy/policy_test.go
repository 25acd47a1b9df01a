package policy

import (
	"strings"
	"testing"

	"banger"
)

// TestLinesOfDecisions checks what a person sees of a decision.
func TestLinesOfDecisions(t *testing.T) {
	flow := banger.Decision{Protocol: "tcp", Name: "example.org", Address: "192.0.2.1", Port: 443, Rule: "default deny",
		Count: 2, PID: 7, Process: "curl"}
	short := banger.Decision{Protocol: "icmp", Address: "192.0.2.1", Rule: "allow any", Allowed: true}
	for want, d := range map[string]banger.Decision{
		` box (curl, pid 7): tcp example.org 192.0.2.1:443 denied by "default deny", 2 times`: flow,
		` box: icmp 192.0.2.1 allowed by "allow any"`:                                         short,
	} {
		if got := lineOf("box", d); !strings.HasSuffix(got, want) {
			t.Errorf("it is %q", got)
		}
	}
}
