package cli

import (
	"strings"
	"testing"
)

func TestWrongWords(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	h.check(
		line{args: "nonsense", code: 1, stderr: "banger: there is no command \"nonsense\" (see: banger --help)\n"},
		line{args: "strat", code: 1,
			stderr: "banger: there is no command \"strat\" (see: banger --help); did you mean \"start\"?\n"},
		line{args: "ps --all=x", code: 2,
			stderr: "banger: --all is \"x\", but must be true or false (see: banger ps --help)\n"},
		line{args: "run --cpus x IMAGE", code: 125,
			stderr: "banger: cpus is x, but must be between 0.01 and 64\n"},
		line{args: "run --stop-timeout x IMAGE", code: 125,
			stderr: "banger: --stop-timeout is \"x\", but must be a whole number (see: banger run --help)\n"},
		line{args: "stop -t", code: 2, stderr: "banger: --time needs a value (see: banger stop --help)\n"},
		line{args: "ps --nonsense", code: 2, stderr: "banger: unknown flag: --nonsense (see: banger ps --help)\n"},
		line{args: "start", code: 2,
			stderr: "banger: these arguments do not fit; write: banger start VM... [flags] (see: banger start --help)\n"},
		line{args: "start --all box", code: 2, stderr: "banger: --all is for all VMs, and takes no names …"},
		line{args: "image sl", code: 1,
			stderr: "banger: there is no command \"image sl\" (see: banger image --help); did you mean \"image ls\"?\n"},
		line{args: "network nonsense", code: 1,
			stderr: "banger: there is no command \"network nonsense\" (see: banger network --help)\n"},
		line{args: "help rnu", code: 1,
			stderr: "banger: there is no command \"rnu\" (see: banger --help); did you mean \"run\"?\n"},
		line{args: "help image sl", code: 1, stderr: "banger: there is no command \"image sl\" …"},
		line{args: "help image ls", stdout: "List images\n…"},
		line{args: "help", stdout: "Run any OCI image in its own microVM\n…"},
		line{args: "--version", stdout: "banger …"},
		line{args: "-v", stdout: "banger …"},
		line{args: "ssh", code: 2, stderr: "banger: no VM given (see: banger ssh --help)\n"},
		line{args: "cp a b", code: 2, stderr: "banger: neither SRC nor DST is in a VM: write VM:PATH\n"},
		line{args: "cp a:/x b:/y", code: 2, stderr: "banger: a copy from one VM to another is not possible; …"},
		line{args: "cp a: b", code: 2, stderr: "banger: a path is missing: write VM:PATH\n"},
		line{args: "", stdout: "Run any OCI image in its own microVM\n…"},
		line{args: "vm", stdout: "Work with VMs; the verbs are also at the top level\n…"},
		line{args: "ssh-config", stdout: "Let ssh, scp, sftp, …"},
	)
}

// TestEveryCommandHasHelp checks that each command says what it does, and that its help can be printed.
func TestEveryCommandHasHelp(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	a, _, _ := h.app()
	for _, c := range newRoot(a).Commands() {
		for _, c := range append(c.Commands(), c) {
			if c.Short == "" && !c.Hidden {
				t.Errorf("%s has no short help", c.CommandPath())
			}
			args := append(strings.Fields(c.CommandPath())[1:], "--help")
			if c.DisableFlagParsing {
				continue
			}
			if got := h.banger(args...); got.code != 0 || !strings.Contains(got.stdout, "Usage:") {
				t.Errorf("%q ends with %d: %s", args, got.code, got.stderr)
			}
		}
	}
}
