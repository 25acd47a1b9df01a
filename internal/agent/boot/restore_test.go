package boot

import (
	"testing"

	"banger/internal/guest"
)

// TestWhichGuestStaysAsItIs: a VM that was suspended keeps its files and its NIC, and a fork gets its own.
func TestWhichGuestStaysAsItIs(t *testing.T) {
	before := guest.Config{Hostname: "box", TimeUnixNano: 1, Network: &guest.Network{Address: "10.0.2.15/24"}}
	for name, c := range map[string]struct {
		change func(*guest.Config)
		same   bool
	}{
		"resumed":          {func(c *guest.Config) { c.TimeUnixNano, c.Seed, c.ResetConnections = 2, []byte("x"), true }, true},
		"renamed":          {func(c *guest.Config) { c.Hostname = "other" }, false},
		"another address":  {func(c *guest.Config) { c.Network = &guest.Network{Address: "10.0.2.16/24"} }, false},
		"a fork by its id": {func(c *guest.Config) { c.MachineID = "1" }, false},
		"a fork by its MAC": {func(c *guest.Config) {
			c.Network = &guest.Network{Address: "10.0.2.15/24", MAC: "02:00:00:00:00:01"}
		}, false},
	} {
		after := before
		c.change(&after)
		if got := isSame(before, after); got != c.same {
			t.Errorf("%s: it is the same VM: %t", name, got)
		}
	}
}
