package banger

import "cmp"

// These limits bound what a client can make the guest hold.
const (
	MaxArgs     = 1 << 15
	MaxEnv      = 1 << 15
	MaxExecSize = 512 << 10 // bytes of args and env together, below the frame limit
)

// Exec is one command to run in a VM: the body of POST /v1/vms/{id}/exec and,
// resolved, the VM's main command.
type Exec struct {
	Args  []string `json:"args"`
	Env   []string `json:"env,omitempty"`  // KEY=VALUE; the agent adds PATH, HOME, HOSTNAME, TERM where absent
	Dir   string   `json:"dir,omitempty"`  // must be there; "" means "/"
	User  string   `json:"user,omitempty"` // name or uid, optionally :group; resolved in the guest
	TTY   bool     `json:"tty,omitempty"`
	Stdin bool     `json:"stdin,omitempty"` // if false, the command reads /dev/null
	Rows  uint16   `json:"rows,omitempty"`
	Cols  uint16   `json:"cols,omitempty"`
	// Workspace makes the command start in the VM's workspace instead of Dir, if it has one to start in.
	Workspace bool `json:"workspace,omitempty"`

	Secrets []string `json:"secrets,omitempty"` // names of the VM's secrets that become variables

	// Main marks the VM's main command. It outlives its client, and its exit ends the VM. A VM has at most one.
	Main bool `json:"main,omitempty"`
}

// Check returns an *Error of CodeInvalid when e cannot be run at all.
func (e *Exec) Check() error {
	if len(e.Args) == 0 || e.Args[0] == "" {
		return Errorf(CodeInvalid, "no command given")
	}
	if len(e.Args) > MaxArgs || len(e.Env) > MaxEnv {
		return Errorf(CodeInvalid, "command has %d arguments and %d variables, but at most %d and %d are allowed",
			len(e.Args), len(e.Env), MaxArgs, MaxEnv)
	}
	n := 0
	for _, list := range [][]string{e.Args, e.Env, {e.Dir, e.User}} {
		for _, s := range list {
			n += len(s) + 1
		}
	}
	if n > MaxExecSize {
		return Errorf(CodeInvalid, "command and environment take %s, but at most %s is allowed", FormatSize(int64(n)),
			FormatSize(MaxExecSize))
	}
	return cmp.Or(CheckSecrets(e.Secrets...), e.checkText())
}

// Exit is how a command ended. Exactly one of Code (0..255) and Signal is
// meaningful: Signal is not 0 when a signal killed it.
type Exit struct {
	Code   int `json:"code"`
	Signal int `json:"signal,omitempty"`
}

// Status returns the exit code a shell would show: the command's own, or 128+n
// for signal n.
func (e Exit) Status() int {
	if e.Signal != 0 {
		return 128 + e.Signal
	}
	return e.Code
}
