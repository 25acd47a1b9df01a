package banger

import (
	"fmt"
	"testing"
)

// TestCapabilitiesAreDroppedAsDockerDoes: what is added stays, in any order and in any way of writing.
func TestCapabilitiesAreDroppedAsDockerDoes(t *testing.T) {
	for _, c := range []struct {
		drop, add []string
		want      string
	}{
		{nil, nil, "[]"},
		{nil, []string{"SYS_ADMIN"}, "[]"},
		{[]string{"CHOWN"}, nil, "[0]"},
		{[]string{"cap_net_raw", "CAP_KILL"}, nil, "[5 13]"},
		{[]string{"CHOWN", "KILL"}, []string{"chown"}, "[5]"},
		{[]string{"ALL"}, []string{"ALL"}, "[]"},
	} {
		if got, err := DroppedCapabilities(c.drop, c.add); fmt.Sprint(got) != c.want || err != nil {
			t.Errorf("%v without %v is %v, %v", c.drop, c.add, got, err)
		}
	}
	all, err := DroppedCapabilities([]string{"all"}, []string{"CHECKPOINT_RESTORE"})
	if len(all) != 40 || all[39] != 39 || err != nil {
		t.Errorf("all but the last are %v, %v", all, err)
	}
	if _, err := DroppedCapabilities(nil, []string{"FLY"}); CodeOf(err) != CodeInvalid {
		t.Errorf("an unknown capability gives %v", err)
	}
}
