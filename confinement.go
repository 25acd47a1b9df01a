package banger

// Confinement bounds what the commands of a VM may do and use, as docker's flags of the same names. Root in the guest
// who is not confined, such as the image's own init, can lift it: the boundary to the host is the VM.
type Confinement struct {
	Ulimits []Ulimit `json:"ulimits,omitempty"`
	CapDrop []string `json:"cap_drop,omitempty"` // capabilities that no command has; see DroppedCapabilities
	CapAdd  []string `json:"cap_add,omitempty"`
	// NoNewPrivileges keeps commands from gaining rights by setuid programs (prctl(2), PR_SET_NO_NEW_PRIVS).
	NoNewPrivileges bool `json:"no_new_privileges,omitempty"`
	// CPU is how many thousandths of a CPU all commands may use together. 0 means no limit.
	CPU int64 `json:"cpu,omitempty"`
	// SessionDisk is the room of the VM's disk for the output of all sessions, in bytes. 0 means 256 MiB.
	SessionDisk int64 `json:"session_disk,omitempty"`
}

const minCPU = 10 // of Confinement.CPU, below which the kernel's smallest quota lies

// Check returns an *Error of CodeInvalid if a limit or a capability is not known.
func (c Confinement) Check() error {
	seen := map[string]bool{}
	for _, u := range c.Ulimits {
		if err := u.Check(); err != nil {
			return err
		}
		if seen[u.Name] {
			return Errorf(CodeInvalid, "the limit %s is given twice", u.Name)
		}
		seen[u.Name] = true
	}
	if c.CPU != 0 && c.CPU < minCPU {
		return Errorf(CodeInvalid, "cpus is %g, but must be at least %g", float64(c.CPU)/1000, minCPU/1000.0)
	}
	if c.SessionDisk != 0 && c.SessionDisk < 4<<20 {
		return Errorf(CodeInvalid, "session disk is %s, but must be at least 4 MiB", FormatSize(c.SessionDisk))
	}
	_, err := DroppedCapabilities(c.CapDrop, c.CapAdd)
	return err
}

// OfProcess reports whether c bounds a single process, and not only all commands together.
func (c Confinement) OfProcess() bool {
	return len(c.Ulimits) > 0 || len(c.CapDrop) > 0 || c.NoNewPrivileges
}
