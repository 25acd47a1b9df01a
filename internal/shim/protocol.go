// Package shim is the protocol of the process between the daemon and one VM. This process, the shim, is the VMM's
// parent, keeps the console log and the agent channel, and offers one unix socket with the same protocol for every
// VMM. The daemon may die or be replaced meanwhile, and then connects again. When a shim dies, its VMM dies too.
//
// The package holds the protocol and Client, the daemon's end. Package server is the process. The package must not
// know of images, names, SQL or HTTP.
package shim

import (
	"fmt"
	"path/filepath"
	"time"

	"banger"
	"banger/internal/vmm"
)

// Spec is the input of a shim, stored as JSON in its directory.
type Spec struct {
	Driver string `json:"driver"`
	Run    string `json:"run"` // directory of the socket; set by Client.Start
	// Daemon is the user who may make calls, besides root. Client.Start sets it.
	Daemon uint32     `json:"daemon"`
	VM     vmm.Config `json:"vm"`
	// Template says that the VM is to become a template: when its guest waits for its host, it is written to its directory
	// as a snapshot, and ends. Client.Start then returns when the snapshot is complete.
	Template bool `json:"template,omitempty"`
	// Nice is the priority of the shim and its VMM, 0 to 19 (setpriority(2)).
	Nice int `json:"nice,omitempty"`
	// Jail is the jail into which root puts the VMM. If it is nil, the VMM is confined without a jail.
	Jail *Jail `json:"jail,omitempty"`
	// Fork says that the VM goes on from a snapshot of another one, and has a copy of its main command's output.
	Fork bool `json:"fork,omitempty"`
	// Network is the VM's network; nil: no NIC.
	Network *Network `json:"network,omitempty"`
}

// Snapshot is what a snapshot of a running VM needs: two files in the VM's directory by their names.
type Snapshot struct {
	Overlay string `json:"overlay"`        // empty, and the VM's disk from now on
	Frozen  string `json:"frozen"`         // to which the disk wrote before
	Disk    bool   `json:"disk,omitempty"` // only the disk: nothing is written to SnapDir
}

// SnapDir is the directory, in that of a VM, for the files of a snapshot: those of package vmm, and the main command's
// output at that instant. It is the VM's user's, and empty before.
const SnapDir = "snap"

// Jail says that a program which needs root puts the VMM into a directory of its own. The shim then starts as root in
// a PID namespace of its own, and changes to the user UID as soon as the VMM has done so, before anything of a guest
// runs. The PID namespace, whose first process is the shim, ends the VMM with the shim. The parent-death signal
// cannot do that, because it does not survive a change of user (prctl(2), PR_SET_PDEATHSIG).
type Jail struct {
	UID int `json:"uid"`
	GID int `json:"gid"`
	// Dir is the directory of jails, on the same file system as the VM's files.
	Dir string `json:"dir"`
}

// Network is the complete wanted state of a VM's network.
type Network struct {
	MAC string `json:"mac"`
	// Address is the guest's address for the host's kernel if the VM is on a bridge. "" means a user network.
	Address string        `json:"address,omitempty"`
	Policy  banger.Policy `json:"policy"` // policy of a user network; a bridge has its own
	// Tap is the name of a tap that the VMM opens. For a user network the tap is in a network namespace of its own, for
	// a bridge in the host's. "" means that the VMM sends its frames to a socket, or that the shim gets the bridge's tap
	// as a descriptor.
	Tap string `json:"tap,omitempty"`
	// Forwards have one socket each, which the shim gets in their order, after a tap.
	Forwards []banger.Forward `json:"forwards,omitempty"`
	// Own are ports of a VM that goes on, on its loopback address. Each has a socket, after those of Forwards, in which
	// connections may wait. Listeners is what listens in its guest. The shim opens the other ports itself.
	Own       []banger.Forward  `json:"own,omitempty"`
	Listeners []banger.Listener `json:"listeners,omitempty"`
	// Loopback is the VM's own address in 127.0.0.0/8. On it, every listening port of the guest is open to the user
	// Owner. "" means none.
	Loopback string `json:"loopback,omitempty"`
	Owner    uint32 `json:"owner"`
}

// Attachment is how the VMM's net device is connected to a network.
type Attachment int

// The values of Attachment.
const (
	// AttachStream is for a user network: the VMM sends its frames to a socket.
	AttachStream Attachment = iota
	// AttachPrivate is for a user network: the VMM opens a tap by name, in namespaces of its own.
	AttachPrivate
	// AttachHanded is for a bridge: the shim gets its tap as a descriptor and passes it to the VMM.
	AttachHanded
	// AttachNamed is for a bridge: the VMM opens its tap by name.
	AttachNamed
)

// Attachment returns how the VMM's net device is connected to n.
func (n *Network) Attachment() Attachment {
	switch {
	case n.Address == "" && n.Tap == "":
		return AttachStream
	case n.Address == "":
		return AttachPrivate
	case n.Tap == "":
		return AttachHanded
	}
	return AttachNamed
}

// Status is the shim's answer to a control call.
type Status struct {
	Shim  vmm.Handle `json:"shim"`
	VMM   vmm.Handle `json:"vmm"`
	Agent bool       `json:"agent"`           // the agent has answered on the channel
	Ended bool       `json:"ended,omitempty"` // the VMM has ended; Exit is valid
	Exit  vmm.Exit   `json:"exit,omitzero"`
	Error string     `json:"error,omitempty"` // the call failed

	Code banger.Code `json:"code,omitempty"` // of Error

	// Disk is the name of the file to which the VM's disk writes, in the VM's directory.
	Disk   string `json:"disk,omitempty"`
	Paused int64  `json:"paused_ms,omitempty"` // the answer to SNAPSHOT: how long the VM stood still

	Ports []banger.Listener `json:"ports,omitempty"` // the answer to PORTS, and what a suspended VM listened on
	Stats Stats             `json:"stats,omitzero"`  // the answer to STATS
}

// Stats are totals since the VMM started, in bytes.
type Stats struct {
	vmm.Stats
	NetIn  uint64 `json:"net_in"` // sent to the guest by a user network
	NetOut uint64 `json:"net_out"`
	// Moved grows whenever a byte moves for a client, by an offered stream or a forward. What the daemon itself asks the
	// agent does not count.
	Moved uint64 `json:"moved"`
}

// Maximum sizes in bytes of files in a shim's directory. The spec may have a long list of forwards; the exit record
// of a suspended VM has a list of ports.
const (
	MaxSpec = 4 << 20
	maxExit = 1 << 20
)

// MaxWaiting is the maximum number of ports of a VM's own address that stay open while the VM is suspended.
const MaxWaiting = 256

// Files in a shim's directory.
const (
	SpecFile    = "shim.json"
	ExitFile    = "exit.json"
	ConsoleFile = "console.log"
	OutputFile  = "output.log" // what the main command writes, in the format of package output
	SocketFile  = "shim.sock"
	ErrorFile   = "shim.err"
	// DecisionsFile has the name that it had when it was for refusals alone.
	DecisionsFile = "denials.jsonl"
)

// The control calls. The client sends one line and gets one JSON line back, with three exceptions. CONNECT is
// answered by "OK n", and the connection becomes the stream (the protocol of Firecracker's vsock socket). OFFER is
// answered in the same way, and so is MAIN. WATCH is answered when the VMM ends.
const (
	CallStatus = "STATUS"
	CallWatch  = "WATCH"
	CallKill   = "KILL"
	CallPause  = "PAUSE"
	CallResume = "RESUME"
	// CallSuspend writes the VM to its directory and ends the VMM. If that fails, the VM goes on. The listening sockets
	// come before the answer: up to MaxFiles of them with each space.
	CallSuspend = "SUSPEND"
	// CallSnapshot + JSON of a Snapshot writes the VM to a directory, puts an overlay on its disk, and lets it go on.
	CallSnapshot = "SNAPSHOT"
	// CallSettled is like CallStatus, but waits until no snapshot is being taken.
	CallSettled = "SETTLED"
	CallClock   = "CLOCK" // sets the guest's clock from the host's
	CallConnect = "CONNECT"
	// CallOffer + port opens a stream as CONNECT does. Lines of SEND follow, and then KEEP or GIVE says who gets the
	// stream.
	CallOffer = "OFFER"
	// CallMain + port is OFFER for the stream of the main command's start. The client of the stream also gets the
	// command's output.
	CallMain    = "MAIN"
	CallSend    = "SEND"    // + length: this many bytes for the agent follow
	CallKeep    = "KEEP"    // this connection becomes the stream
	CallGive    = "GIVE"    // the socket that comes with the first byte becomes the stream
	CallConsole = "CONSOLE" // + tail: answered by console bytes until the VMM ends
	CallOutput  = "OUTPUT"  // + view: answered by frames of the main command's output until the VMM ends
	CallStats   = "STATS"
	CallPorts   = "PORTS" // with the argument Probe it sends a request to each service
	// CallForward + JSON of a forward adds it. Its socket comes with the first byte (unix(7), SCM_RIGHTS).
	CallForward = "FORWARD"
	CallRelease = "RELEASE" // + JSON of a forward
	// CallAccept begins to take connections to a VM that goes on. Until then they wait in their sockets.
	CallAccept = "ACCEPT"
	// CallCarry + JSON of a forward carries a connection, which comes with the first byte and was accepted while the VM
	// was suspended.
	CallCarry  = "CARRY"
	CallPolicy = "POLICY" // + JSON of a policy
	CallOnce   = "ONCE"   // + JSON of Once: a rule counts in front of the policy for a time
	CallDeny   = "DENY"   // + JSON of a refusal, to keep with the others
	// CallDecisions + tail, whether to follow, and whether flows that were allowed are wanted too: answered by lines of
	// JSON. The word is older than the last argument, which a shim of an earlier banger ignores.
	CallDecisions = "DENIALS"
)

// Once is a rule that counts in front of the policy for a time.
type Once struct {
	Rule banger.Rule   `json:"rule"`
	For  time.Duration `json:"for"` // in nanoseconds
}

// MaxFiles is the maximum number of descriptors that come with one byte (unix(7), SCM_MAX_FD).
const MaxFiles = 253

// Probe is the argument of PORTS that makes the shim send a request to each service.
const Probe = "probe"

// AllTaken is the end of the answer to a call for a stream when too many are open.
const AllTaken = "streams are open already"

// Maximum times of a shim.
const (
	CallTime    = 10 * time.Second // to answer a call
	ConnectTime = 60 * time.Second // to open a stream to a booting agent
)

// Descriptor returns a path for an open file. To open the file by it, a process needs no rights to the directories
// above the file.
func Descriptor(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// ConsolePath returns the file with the end of the guest's console output. ConsolePath+".1" holds the output before
// that.
func ConsolePath(dir string) string { return filepath.Join(dir, ConsoleFile) }

// OutputPath returns the file with the end of what the main command has written.
func OutputPath(dir string) string { return filepath.Join(dir, OutputFile) }
