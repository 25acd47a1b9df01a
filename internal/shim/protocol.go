// Package shim is the process between the daemon and one VM. It is the VMM's
// parent, keeps the console log and the agent channel, and offers one unix
// socket on which every VM looks alike. The daemon may die or be replaced
// meanwhile: it comes back by connecting. When a shim dies its VMM dies too.
//
// The package holds what the daemon and the shim say to each other, and Client, the daemon's end. Package
// server is the process. The package must not know of images, names, SQL or HTTP.
package shim

import (
	"fmt"
	"path/filepath"
	"time"

	"banger"
	"banger/internal/vmm"
)

// Spec is what a shim is started with, stored as JSON in its directory.
type Spec struct {
	Driver string     `json:"driver"`
	Run    string     `json:"run"`    // directory of the socket; set by Client.Start
	Daemon uint32     `json:"daemon"` // the user whose calls are heard, beside root; set by Client.Start
	VM     vmm.Config `json:"vm"`
	// Jail is where the VMM is put by root; nil: it is confined as it starts.
	Jail *Jail `json:"jail,omitempty"`
	// Network is the VM's network; nil: no NIC.
	Network *Network `json:"network,omitempty"`
}

// Jail says that the VMM is put into a directory of its own by a program that needs root
// for that. The shim starts as root then, in a PID namespace of its own, and becomes this
// user as soon as the VMM has, before anything of a guest runs. That the VMM does not
// outlive the shim is the PID namespace's doing: the shim is its first process, and the
// parent-death signal does not survive a change of user (prctl(2), PR_SET_PDEATHSIG).
type Jail struct {
	UID int `json:"uid"`
	GID int `json:"gid"`
	// Dir is where jails are made, on the file system of the VM's files.
	Dir string `json:"dir"`
}

// Network is the wished state of a VM's network, as a whole.
type Network struct {
	MAC string `json:"mac"`
	// Address is the guest's, where the host's kernel reaches it: the VM is on a
	// bridge. "": a user network.
	Address string        `json:"address,omitempty"`
	Policy  banger.Policy `json:"policy"` // of a user network; a bridge has its own
	// Tap is the name of a tap that the VMM opens: that of a user network in a network
	// namespace of its own, that of a bridge in the host's. "": the VMM brings its frames to a
	// socket, or the bridge's tap is handed to the shim.
	Tap string `json:"tap,omitempty"`
	// Forwards have a socket each, handed to the shim in their order, after a tap.
	Forwards []banger.Forward `json:"forwards,omitempty"`
	// Loopback is the VM's own address of 127.0.0.0/8, on which every port that the
	// guest listens on is open to Owner; "" for none.
	Loopback string `json:"loopback,omitempty"`
	Owner    uint32 `json:"owner"`
}

// Attachment is how the VMM's net device meets a network.
type Attachment int

// The attachments.
const (
	AttachStream  Attachment = iota // a user network: the VMM brings its frames to a socket
	AttachPrivate                   // a user network: the VMM opens a tap in namespaces of its own, by name
	AttachHanded                    // a bridge: its tap is handed to the shim, and by it to the VMM
	AttachNamed                     // a bridge: the VMM opens its tap by name
)

// Attachment returns how the VMM's net device meets n.
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

	Ports []banger.Listener `json:"ports,omitempty"` // the answer to PORTS
	Stats Stats             `json:"stats,omitzero"`  // the answer to STATS
}

// Stats are totals since the VMM started, in bytes.
type Stats struct {
	vmm.Stats
	NetIn  uint64 `json:"net_in"` // to the guest, by a user network
	NetOut uint64 `json:"net_out"`
}

// Bounds of files in a shim's directory in bytes: that of the longest list of forwards, and
// that of a sentence about an end.
const (
	MaxSpec = 4 << 20
	maxExit = 64 << 10
)

// Files in a shim's directory.
const (
	SpecFile    = "shim.json"
	ExitFile    = "exit.json"
	ConsoleFile = "console.log"
	SocketFile  = "shim.sock"
	ErrorFile   = "shim.err"
	DenialsFile = "denials.jsonl"
)

// The control calls: one line from the client, one JSON line back, except
// CONNECT, which is answered by "OK n" and becomes the stream (the protocol of
// Firecracker's vsock socket), OFFER, which is answered so too, and WATCH, which is
// answered when the VMM ends.
const (
	CallStatus  = "STATUS"
	CallWatch   = "WATCH"
	CallKill    = "KILL"
	CallPause   = "PAUSE"
	CallResume  = "RESUME"
	CallClock   = "CLOCK" // the guest's clock is set by the host's
	CallConnect = "CONNECT"
	CallOffer   = "OFFER"   // + port: a stream as CONNECT's once it is said whose: lines of SEND, then KEEP or GIVE
	CallSend    = "SEND"    // + length: so many bytes for the agent follow
	CallKeep    = "KEEP"    // this connection becomes the stream
	CallGive    = "GIVE"    // the socket that comes with the first byte becomes the stream
	CallConsole = "CONSOLE" // + tail: answered by console bytes until the VMM ends
	CallStats   = "STATS"
	CallPorts   = "PORTS"
	CallForward = "FORWARD" // + JSON of a forward; its socket comes with the first byte (unix(7), SCM_RIGHTS)
	CallRelease = "RELEASE" // + JSON of a forward
	CallPolicy  = "POLICY"  // + JSON of a policy
	CallDeny    = "DENY"    // + JSON of a denial, to be kept with the others
	CallDenials = "DENIALS" // + tail and whether to follow: answered by lines of JSON
)

// AllTaken ends the answer to a call for a stream beyond the last one.
const AllTaken = "streams are open already"

// How long a shim takes at most.
const (
	CallTime    = 10 * time.Second // to answer a call
	ConnectTime = 60 * time.Second // to open a stream to an agent that boots
)

// Descriptor returns a name of an open file, by which nothing of its path need be passed.
func Descriptor(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// ConsolePath returns the file that holds the end of the guest's console output;
// ConsolePath+".1" holds what came before.
func ConsolePath(dir string) string { return filepath.Join(dir, ConsoleFile) }
