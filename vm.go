package banger

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Limits of a Spec. Sizes are in bytes.
const (
	MaxCPUs       = 64
	MinMemory     = 128 << 20
	MaxMemory     = 1 << 40
	MinDisk       = 64 << 20
	MaxDisk       = 16 << 40
	DefaultCPUs   = 1
	DefaultMemory = 512 << 20
	DefaultDisk   = 10 << 30
)

// Values of Spec.Pull, Spec.VMM, Spec.Nested, Spec.Warm and Spec.Init.
const (
	PullMissing = "missing"
	PullAlways  = "always"
	PullNever   = "never"

	VMMAuto        = "auto"
	VMMQEMU        = "qemu"
	VMMFirecracker = "firecracker"

	NestedOn    = "on"    // the guest can run VMs of its own
	NestedForce = "force" // even for an untrusted VM

	WarmAuto, WarmNever = "auto", "never" // start from a template if there is one; boot, and make no template
	WarmOnly            = "only"          // fail if there is no template
	WarmBooted          = "booted"        // start from one whose init has booted, if there is one

	InitAuto  = "auto"  // the image's init if it is systemd, otherwise our agent
	InitAgent = "agent" // our agent stays PID 1
	InitImage = "image" // PID 1 is handed to the image's /sbin/init
)

// Spec is what a user asks for: the body of POST /v1/vms. Zero values mean the default; see Normalize.
type Spec struct {
	Name  string `json:"name,omitempty"`
	Image string `json:"image"`
	Pull  string `json:"pull,omitempty"`
	// Platform is os/arch[/variant], for an image for several platforms. "" means this machine's.
	Platform   string            `json:"platform,omitempty"`
	Kernel     string            `json:"kernel,omitempty"`
	VMM        string            `json:"vmm,omitempty"`
	CPUs       int               `json:"cpus,omitempty"`
	CPUModel   string            `json:"cpu_model,omitempty"` // in QEMU's syntax, such as EPYC-v3,-rdrand
	Nested     string            `json:"nested,omitempty"`    // the guest gets /dev/kvm: NestedOn or NestedForce
	Memory     int64             `json:"memory,omitempty"`    // bytes
	Disk       int64             `json:"disk,omitempty"`      // bytes
	Warm       string            `json:"warm,omitempty"`      // WarmAuto, ...
	Hostname   string            `json:"hostname,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	Init       string            `json:"init,omitempty"`
	Network    string            `json:"network,omitempty"`
	AutoRemove bool              `json:"auto_remove,omitempty"`
	NoWake     bool              `json:"no_wake,omitempty"` // suspended, it goes on only when a user says so

	// These fields say what banger does with the VM by itself. TTL counts from VM.LivesSince; Idle from when a byte moved
	// for a client, or the VM needed more than a little CPU.
	Restart RestartPolicy `json:"restart,omitzero"`
	TTL     Timer         `json:"ttl,omitzero"`
	Idle    Timer         `json:"idle,omitzero"`

	// These fields change the guest's file system, and the names that the guest can look up. DNS, if given, replaces
	// banger's own name server; DNSSearch replaces the host's search domains.
	ReadOnly  bool        `json:"read_only,omitempty"` // the root, but not the image's volumes and tmpfs
	Tmpfs     []Tmpfs     `json:"tmpfs,omitempty"`
	Hosts     []HostEntry `json:"hosts,omitempty"`
	DNS       []string    `json:"dns,omitempty"`
	DNSSearch []string    `json:"dns_search,omitempty"`

	// These fields say what the VM may reach and what may reach the VM. A nil Policy allows the Internet; for an
	// untrusted VM it allows nothing.
	Untrusted  bool      `json:"untrusted,omitempty"`
	Policy     *Policy   `json:"policy,omitempty"`
	Forwards   []Forward `json:"forwards,omitempty"`
	PublishAll bool      `json:"publish_all,omitempty"` // forward the ports that the image exposes to free ports
	// CA holds more certificates of authorities that the guest will trust, in PEM.
	CA string `json:"ca,omitempty"`

	// The main command has docker's rules: a non-nil Entrypoint replaces the image's entrypoint and its Cmd; Cmd
	// replaces the image's Cmd.
	Entrypoint []string `json:"entrypoint,omitempty"`
	Cmd        []string `json:"cmd,omitempty"`
	Env        []string `json:"env,omitempty"`        // KEY=VALUE
	SecretEnv  []string `json:"secret_env,omitempty"` // secrets that are variables of the main command
	WorkingDir string   `json:"working_dir,omitempty"`
	User       string   `json:"user,omitempty"`
	TTY        bool     `json:"tty,omitempty"`
	Stdin      bool     `json:"stdin,omitempty"` // a main command that starts without a client has an open stdin

	Ready   *Probe `json:"ready,omitempty"`    // nil: the image's health check, if it has one
	NoReady bool   `json:"no_ready,omitempty"` // there is no probe, whatever the image says

	// Confine bounds what the commands may do and use.
	Confine Confinement `json:"confine,omitzero"`
	// StopSignal ends the main command. "" means the image's.
	StopSignal string `json:"stop_signal,omitempty"`
	// StopTimeout is how many seconds a stop waits before it kills. Nil means 10.
	StopTimeout *int `json:"stop_timeout,omitempty"`

	// Attach means that the client starts the main command itself (run without -d), so the daemon does not.
	Attach bool `json:"attach,omitempty"`
}

// Timing is the duration of one stage of a start.
type Timing struct {
	Stage  string `json:"stage"`
	Millis int64  `json:"ms"`
}

// Limits bound what all processes of a VM on its host, the VMM and our own, may use together. 0 means no limit.
type Limits struct {
	Memory int64 `json:"memory,omitempty"` // bytes
	CPUs   int   `json:"cpus,omitempty"`
	Tasks  int   `json:"tasks,omitempty"` // processes and threads
}

// VM is one machine, as it is stored and as inspect shows it.
type VM struct {
	ID          string    `json:"id"`
	Name        string    `json:"name"`
	Spec        Spec      `json:"spec"`
	State       State     `json:"state"`
	Reason      string    `json:"reason,omitempty"`    // why it stopped or failed
	ExitCode    *int      `json:"exit_code,omitempty"` // of the main command
	CreatedAt   time.Time `json:"created_at"`
	StartedAt   time.Time `json:"started_at,omitzero"`
	FinishedAt  time.Time `json:"finished_at,omitzero"`
	ImageDigest string    `json:"image_digest"`
	Kernel      string    `json:"kernel"`
	Initramfs   string    `json:"initramfs,omitempty"` // file in the kernel's directory that was used at the last start
	VMM         string    `json:"vmm"`                 // driver name and version
	Isolation   string    `json:"isolation"`           // IsolationKVM or IsolationEmulated
	Timings     []Timing  `json:"timings,omitempty"`
	Fresh       bool      `json:"fresh,omitempty"` // it has never started, so its disk is empty
	// Base is the id of the layer beneath its disk; "" means that the disk is one file.
	Base string `json:"base,omitempty"`
	// Snapshot is the id of the snapshot whose state the VM has gone on from: its latest one, or the one of a restore or
	// a fork.
	Snapshot string `json:"snapshot,omitempty"`
	// ForkOf is the id of the VM that it was made of, or of the one that has taken that VM's place.
	ForkOf string `json:"fork_of,omitempty"`
	// Restoring is the id of the snapshot to which the VM is going back. A daemon that finds it completes that.
	Restoring string `json:"restoring,omitempty"`
	// Template is the id of the template from which the VM started last. "" means that it booted.
	Template string `json:"template,omitempty"`
	Start    string `json:"start,omitempty"` // how the VM started last, and how long that took, for a person
	// Address is set while the VM runs or is suspended. All its ports are open on this address of its own, which is in
	// the host's 127.0.0.0/8 or on a bridge.
	Address string `json:"address,omitempty"`
	// Forwards is set while the VM runs or is suspended. It holds the forwards in force, with the free ports that were
	// chosen.
	Forwards []Forward `json:"forwards,omitempty"`
	// Listeners is set while the VM is suspended. It holds what listened in the guest, and where on its own address
	// connections to it wake the VM.
	Listeners  []Listener `json:"listeners,omitempty"`
	Limits     *Limits    `json:"limits,omitempty"`       // set while it runs: what its processes may use together
	SSHHostKey string     `json:"ssh_host_key,omitempty"` // the public half, as one line
	// DiskUsed is how many bytes of the host's disk the VM takes. Only a list with sizes has it.
	DiskUsed int64 `json:"disk_used,omitempty"`
	// LivesSince is the last start that a user asked for. Reboots, restarts by the policy and resumes do not change it.
	LivesSince time.Time `json:"lives_since,omitzero"`
	// Halted means that a user, or the end of a time, has stopped the VM. Its restart policy rests then, until the VM or
	// the daemon starts.
	Halted    bool      `json:"halted,omitempty"`
	Restarts  int       `json:"restarts,omitempty"`  // by the restart policy, since LivesSince
	RestartAt time.Time `json:"restart_at,omitzero"` // set while the VM has ended and will start again
	// Expired means that the VM has gone on after the end of its time to live, so it is not suspended for that again.
	Expired bool   `json:"expired,omitempty"`
	Next    *Sizes `json:"next,omitempty"` // from its next boot on; nil: those of Spec
	// Due is what banger will do by itself with the VM as it is now, in the order of the times.
	Due []Due `json:"due,omitempty"`
	// Probe is the resolved ready probe, and Readiness what it has seen, while the VM runs.
	Probe     *Probe     `json:"probe,omitempty"`
	Readiness *Readiness `json:"readiness,omitempty"`
	Secrets   []string   `json:"secrets,omitempty"` // names of its secrets, sorted; no row has a value
	// Main is the resolved main command. It is nil if the machine only waits for execs.
	Main *Exec `json:"main,omitempty"`
}

// Values of VM.Isolation, which says what separates the guest from the host.
const (
	IsolationKVM      = "kvm"
	IsolationEmulated = "emulated (none)"
)

// HiddenValue replaces each value of Spec.Env for readers that need only the names.
const HiddenValue = "***"

// Normalize fills in defaults and checks every field. It has no other effect. It returns an *Error of CodeInvalid
// that names the field.
func (s *Spec) Normalize() error {
	s.Pull = cmp.Or(s.Pull, PullMissing)
	s.VMM = cmp.Or(s.VMM, VMMAuto)
	s.Init = cmp.Or(s.Init, InitAuto)
	s.Warm = cmp.Or(s.Warm, WarmAuto)
	s.Network = cmp.Or(s.Network, NetworkUser)
	s.CPUs = cmp.Or(s.CPUs, DefaultCPUs)
	s.Memory = cmp.Or(s.Memory, DefaultMemory)
	s.Disk = cmp.Or(s.Disk, DefaultDisk)
	switch {
	case s.Image == "":
		return Errorf(CodeInvalid, "no image given").WithHint("for example: banger run debian-bookworm")
	case s.CPUs < 1 || s.CPUs > MaxCPUs:
		return Errorf(CodeInvalid, "cpus is %d, but must be between 1 and %d", s.CPUs, MaxCPUs)
	case s.Memory < MinMemory || s.Memory > MaxMemory:
		return Errorf(CodeInvalid, "memory is %s, but must be between %s and %s", FormatSize(s.Memory), FormatSize(MinMemory),
			FormatSize(MaxMemory))
	case s.Disk < MinDisk || s.Disk > MaxDisk:
		return Errorf(CodeInvalid, "disk is %s, but must be between %s and %s", FormatSize(s.Disk), FormatSize(MinDisk),
			FormatSize(MaxDisk))
	}
	if s.Name != "" {
		if err := CheckName(s.Name); err != nil {
			return err
		}
	}
	if err := s.checkCPU(); err != nil {
		return err
	}
	for _, c := range []struct {
		field, value string
		allowed      []string
	}{
		{"pull", s.Pull, []string{PullMissing, PullAlways, PullNever}},
		{"vmm", s.VMM, []string{VMMAuto, VMMFirecracker, VMMQEMU}},
		{"init", s.Init, []string{InitAuto, InitAgent, InitImage}},
		{"warm", s.Warm, []string{WarmAuto, WarmNever, WarmOnly, WarmBooted}},
	} {
		if err := oneOf(c.field, c.value, c.allowed); err != nil {
			return err
		}
	}
	if s.Hostname != "" {
		if err := CheckHostname(s.Hostname); err != nil {
			return err
		}
	}
	if err := s.normalizeNetwork(); err != nil {
		return err
	}
	if s.CA != "" {
		if _, err := CACertificates([]byte(s.CA)); err != nil {
			return err
		}
	}
	return cmp.Or(s.checkGuest(), s.checkFuture(), s.checkText())
}

// maxStopTimeout is the maximum of Spec.StopTimeout in seconds.
const maxStopTimeout = 3600

// checkGuest checks the fields about what a guest has beside its image.
func (s *Spec) checkGuest() error {
	for _, t := range s.Tmpfs {
		if err := t.Check(); err != nil {
			return err
		}
	}
	if err := s.checkNames(); err != nil {
		return err
	}
	if s.StopSignal != "" {
		if _, err := ParseSignal(s.StopSignal); err != nil {
			return err
		}
	}
	if t := s.StopTimeout; t != nil && (*t < 0 || *t > maxStopTimeout) {
		return Errorf(CodeInvalid, "stop_timeout is %d, but must be between 0 and %d seconds", *t, maxStopTimeout)
	}
	if s.Confine.CPU > int64(s.CPUs)*1000 {
		return Errorf(CodeInvalid, "confine.cpu is %d, but the VM has %d CPUs", s.Confine.CPU, s.CPUs)
	}
	return s.Confine.Check()
}

// cpuModel matches the name of a model, followed by features to add or remove. QEMU's option -cpu takes more than
// that; the pattern must not allow a way to QEMU's other options.
var cpuModel = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*(,[+-][a-z0-9][a-z0-9._-]*)*$`)

// maxCPUModel is the maximum length of CPUModel in bytes.
const maxCPUModel = 512

// checkCPU checks CPUModel and Nested.
func (s *Spec) checkCPU() error {
	if s.CPUModel != "" && (len(s.CPUModel) > maxCPUModel || !cpuModel.MatchString(s.CPUModel)) {
		return Errorf(CodeInvalid,
			"cpu_model is %.80q, but must be a model of QEMU's, and features such as ,-rdrand behind it", s.CPUModel).
			WithHint("see: qemu-system-x86_64 -cpu help")
	}
	if s.Nested != "" {
		if err := oneOf("nested", s.Nested, []string{NestedOn, NestedForce}); err != nil {
			return err
		}
	}
	if (s.Nested != "" || s.CPUModel != "") && s.VMM == VMMFirecracker {
		return Errorf(CodeInvalid, "Firecracker gives a guest the host's CPU, without virtualisation of its own").
			WithHint("use --vmm=qemu, or leave --vmm out")
	}
	if s.Nested == NestedOn && s.Untrusted {
		return Errorf(CodeInvalid,
			"an untrusted VM does not run VMs of its own: nested virtualisation is a large part of the host's kernel "+
				"that the guest reaches").
			WithHint("if you accept that: --nested=force")
	}
	return nil
}

// normalizeNetwork does the work of Normalize for the network fields.
func (s *Spec) normalizeNetwork() error {
	if err := CheckName(s.Network); err != nil {
		return Errorf(CodeInvalid, "network is %q, but must be user, none, bridge or the name of a network", s.Network).
			WithHint("see: banger network ls")
	}
	if s.Network == NetworkNone {
		if len(s.Forwards) > 0 || s.PublishAll || s.Policy != nil {
			return Errorf(CodeInvalid, "a VM without a network has no ports and no policy").WithHint("leave out --network none")
		}
		return nil
	}
	if s.Policy == nil {
		s.Policy = &Policy{Default: Allow}
		if s.Untrusted {
			s.Policy.Default = Deny
		}
	}
	if err := s.Policy.Check(); err != nil {
		return err
	}
	return CheckForwards(s.Forwards)
}

func oneOf(field, value string, allowed []string) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	return Errorf(CodeInvalid, "%s is %q, but must be %s", field, value, either(allowed))
}

// either joins words as a sentence does: "a, b or c".
func either(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// StateError returns the error for an operation that does not fit the VM's state. operation completes the sentence
// "cannot ... VM", hint says what to do.
func (vm VM) StateError(operation, hint string) error {
	return Errorf(CodeConflict, "cannot %s VM %s: it is %s", operation, vm.Name, vm.State).WithHint("%s", hint)
}

// NotRunning returns the error for an operation that needs a running VM. operation completes the sentence "cannot ...
// VM".
func (vm VM) NotRunning(operation string) error {
	switch vm.State {
	case StatePaused, StateSuspending, StateSuspended, StateResuming:
		return vm.StateError(operation, "let it go on: banger resume "+vm.Name)
	}
	return vm.StateError(operation, "start it: banger start "+vm.Name)
}

// Wakes reports whether the VM is suspended, or about to be, and goes on when it is used.
func (vm VM) Wakes() bool {
	switch vm.State {
	case StateSuspending, StateSuspended, StateResuming:
		return !vm.Spec.NoWake
	}
	return false
}
