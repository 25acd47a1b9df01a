package cli

import (
	"testing"
)

func TestRun(t *testing.T) {
	h := newCLIHost(t)
	for name, c := range map[string]struct {
		args           []string
		stdout, stderr string
		code           int
	}{
		"output and code": {[]string{"--rm", "IMAGE", "--", "sh", "-c", "echo out; echo err >&2; exit 3"}, "out\n", "err\n", 3},
		"env":             {[]string{"--rm", "-e", "A=1", "IMAGE", "sh", "-c", "echo $A $FROM"}, "1 image\n", "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			args := []string{"run", "-q"}
			for _, a := range c.args {
				if a == "IMAGE" {
					a = h.Image
				}
				args = append(args, a)
			}
			h.banger(args...).is(t, c.stdout, c.stderr, c.code)
		})
	}
}
