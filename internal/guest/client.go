// Package guest is what the host asks of the agent in a guest: requests, which a stream carries, and
// the host's end of them. Package agent answers them.
//
// Whatever the agent answers is hostile: every length is bounded and every text is made printable. The
// package must not know which VMM carries the streams, nor how they are made.
package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"banger"
	"banger/internal/text"
)

// Version is the version of requests and answers. Info tells the agent's.
const Version = 4

// AgentPort is the port on which the agent answers requests.
const AgentPort = 1

// The operations of a request.
const (
	OpConfigure = "configure"        // complete the boot; answers Info
	OpRestored  = "restored"         // a snapshot's guest becomes another VM; answers Info
	OpPing      = "ping"             // answers Info
	OpReady     = "ready"            // answers Info when the image's init obeys commands
	OpExec      = "exec"             // run a command; the stream becomes its stdio
	OpStart     = "start"            // run the main command with its output on the console; answers Info
	OpWait      = "wait"             // answer with FrameExit when the main command has ended
	OpSignal    = "signal"           // signal the main command; answers Info
	OpChanges   = "changes"          // answer with frames of output, the tar of a layer, ending with FrameExit
	OpFileStat  = banger.FileStat    // answers banger.FileInfo
	OpArchive   = banger.FileArchive // answer with frames of output, a tar, ending with FrameExit, a banger.CopyReport
	OpExtract   = banger.FileExtract // take frames of stdin, a tar, up to FrameStdinEOF; answers banger.CopyReport
	OpPorts     = "ports"            // answers with what listens in the guest, and again after each change
	OpOwner     = "owner"            // answers which process has a socket
	OpClock     = "clock"            // correct the clock if the request says how; answers Info with what it then shows
	OpDial      = "dial"             // answers Info; the stream becomes one to a TCP port of the guest's loopback
	OpSSH       = "ssh"              // answers Info; what follows on the stream is the SSH protocol
	OpShutdown  = "shutdown"         // answers Info, then powers off
)

// Request is the first frame of a stream.
type Request struct {
	Op     string       `json:"op"`
	Config *Config      `json:"config,omitempty"`
	Exec   *banger.Exec `json:"exec,omitempty"`
	Signal int          `json:"signal,omitempty"`
	Port   uint16       `json:"port,omitempty"` // of OpDial and OpOwner

	Protocol string `json:"protocol,omitempty"` // of OpOwner: tcp or udp

	File *banger.FileRequest `json:"file,omitempty"`

	SSH *banger.SSH `json:"ssh,omitempty"`

	Clock *Correction `json:"clock,omitempty"` // of OpClock; nil: leave it

	Grace int64 `json:"grace_ms,omitempty"`
}

// Config is what the host tells a guest at each boot.
type Config struct {
	Hostname     string   `json:"hostname"`
	TimeUnixNano int64    `json:"time_unix_nano"`        // set by Client, when the guest is there to read it
	StopSignal   int      `json:"stop_signal,omitempty"` // for the main command; 0 means SIGTERM
	Network      *Network `json:"network,omitempty"`
	SSHHostKey   string   `json:"ssh_host_key,omitempty"` // a private key in OpenSSH's format
	CA           string   `json:"ca,omitempty"`           // certificates to trust, in PEM
	Nested       bool     `json:"nested,omitempty"`       // load what running VMs in the guest needs

	// Of OpRestored: what a guest made of a snapshot must not share with others of it.
	Seed      []byte `json:"seed,omitempty"`       // fresh randomness, at least MinSeed bytes
	MachineID string `json:"machine_id,omitempty"` // machine-id(5), for an image that has one; "" keeps it
}

// MinSeed and MaxSeed bound Config.Seed in bytes.
const (
	MinSeed = 32
	MaxSeed = 512
)

// Network is the guest's one NIC.
type Network struct {
	Address string   `json:"address"` // CIDR
	Gateway string   `json:"gateway"`
	DNS     []string `json:"dns"`
	Search  []string `json:"search,omitempty"` // domains in which names without a dot are looked for
	MTU     int      `json:"mtu"`
	MAC     string   `json:"mac,omitempty"` // of OpRestored; "" keeps it
}

// ExtraCA is the file with what Config.CA was, for programs with a trust store of
// their own.
const ExtraCA = "/etc/ssl/banger.pem"

// InitArgument is the kernel argument that hands PID 1 to the image's own init.
const InitArgument = "banger.init=image"

// RestartArgument says that a restart ends the VM, and nothing else does.
const RestartArgument = "banger.end=restart"

// DisksArgument lists the guest's disks, separated by commas, in the order in which their
// devices appear, where their serial numbers do not name them.
const DisksArgument = "banger.disks"

// Info is what the agent says of itself.
type Info struct {
	Version      int    `json:"version"`
	Kernel       string `json:"kernel"`
	UptimeMillis int64  `json:"uptime_ms"`
	TimeUnixNano int64  `json:"time_unix_nano,omitempty"` // of OpClock: what the guest's clock shows
	ClockSets    int64  `json:"clock_sets,omitempty"`     // of OpClock: how often the host has set or corrected it
}

// callTimeout bounds a request that should be answered at once; a guest may be
// emulated on a busy host. It is as long as a VM may take to start.
const callTimeout = 30 * time.Second

// repeatAfter is how soon a request is made again when its connection was cut.
const repeatAfter = 20 * time.Millisecond

// Client speaks to one agent. Each request takes a stream of its own, so one
// that is slow holds up no other.
type Client struct {
	Dial func(context.Context) (net.Conn, error) // to AgentPort
}

// Configure completes the guest's boot; it waits for a guest that boots as long
// as ctx lasts.
func (c Client) Configure(ctx context.Context, cfg Config) (Info, error) {
	return c.again(ctx, Request{Op: OpConfigure, Config: &cfg})
}

// Restored tells a guest that goes on from a snapshot who it is now: its clock, its
// randomness, its names, its network and its keys become those of cfg, before anything
// else is asked of it. What runs in it goes on. Like Ping it is repeated.
func (c Client) Restored(ctx context.Context, cfg Config) (Info, error) {
	return c.repeated(ctx, Request{Op: OpRestored, Config: &cfg})
}

// Ping asks whether the agent is well. It is repeated, up to 30 seconds or until ctx ends,
// while connections are cut before an answer comes.
func (c Client) Ping(ctx context.Context) (Info, error) {
	return c.repeated(ctx, Request{Op: OpPing})
}

// Ready returns when the guest's init, if it is the image's, obeys commands. ctx bounds the wait.
func (c Client) Ready(ctx context.Context) error {
	_, err := c.again(ctx, Request{Op: OpReady})
	return err
}

// Start runs the main command without a client.
func (c Client) Start(ctx context.Context, e banger.Exec) error {
	_, err := c.brief(ctx, Request{Op: OpStart, Exec: &e})
	return err
}

// Signal signals the main command's process group.
func (c Client) Signal(ctx context.Context, sig int) error {
	_, err := c.brief(ctx, Request{Op: OpSignal, Signal: sig})
	return err
}

// Shutdown asks the guest to stop its programs within grace, sync, unmount and
// power off. It returns when the agent has agreed.
func (c Client) Shutdown(ctx context.Context, grace time.Duration) error {
	_, err := c.brief(ctx, Request{Op: OpShutdown, Grace: grace.Milliseconds()})
	return err
}

// Exec starts a command and returns its stream: frames both ways, ending with
// FrameExit or FrameError. The caller closes it; for a command that is not the
// main one that ends the command.
func (c Client) Exec(ctx context.Context, e banger.Exec) (net.Conn, error) {
	return c.send(ctx, Request{Op: OpExec, Exec: &e})
}

// Changes returns the tar of a layer with all that differs from the image. Its end is
// reported only when the agent has sent all of it. The caller closes it.
func (c Client) Changes(ctx context.Context) (io.ReadCloser, error) {
	conn, err := c.send(ctx, Request{Op: OpChanges})
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	return &changes{ctx: ctx, conn: conn, frames: banger.NewFrameReader(conn), stop: stop}, nil
}

// changesTime is how long the agent may be silent while it sends changes. It may have much to look at between two.
const changesTime = 2 * time.Minute

// changes are the frames of one answer as bytes.
type changes struct {
	ctx    context.Context // of the whole answer
	conn   net.Conn
	frames *banger.FrameReader
	left   []byte
	stop   func() bool
}

func (c *changes) Read(p []byte) (int, error) {
	for len(c.left) == 0 {
		c.conn.SetReadDeadline(time.Now().Add(changesTime))
		if c.ctx.Err() != nil { // its deadline may have been in force already
			return 0, c.ctx.Err()
		}
		t, data, err := c.frames.Next()
		switch {
		case c.ctx.Err() == nil && errors.Is(err, os.ErrDeadlineExceeded):
			return 0, banger.Errorf(banger.CodeTimeout,
				"the guest's agent is silent: for %s nothing came of the changes", changesTime).
				WithHint("see whether the VM works: banger logs VM; a stop and a start mend one that does not")
		case err != nil:
			return 0, banger.Errorf(banger.CodeGuest, "the agent did not send all changes: %w", err)
		case t == banger.FrameError:
			return 0, agentError(data)
		case t == banger.FrameExit:
			return 0, io.EOF
		case t != banger.FrameStdout:
			return 0, banger.Errorf(banger.CodeGuest, "the agent answered with frame %d instead of %d", t, banger.FrameStdout)
		}
		c.left = data
	}
	n := copy(p, c.left)
	c.left = c.left[n:]
	return n, nil
}

func (c *changes) Close() error {
	c.stop()
	return c.conn.Close()
}

func agentError(data []byte) error {
	var e banger.Error
	if err := json.Unmarshal(data, &e); err != nil {
		return banger.Errorf(banger.CodeGuest, "the agent sent a broken error: %w", err)
	}
	return text.Error(e)
}

// Wait returns how the main command ended, when it has.
func (c Client) Wait(ctx context.Context) (banger.Exit, error) {
	var exit banger.Exit
	conn, err := c.send(ctx, Request{Op: OpWait})
	if err != nil {
		return exit, err
	}
	return exit, answer(ctx, conn, banger.FrameExit, &exit)
}

func (c Client) brief(caller context.Context, r Request) (Info, error) {
	ctx, cancel := context.WithTimeout(caller, callTimeout)
	defer cancel()
	info, err := c.call(ctx, r)
	return info, unanswered(caller, err)
}

// unanswered says what it means when the time for an answer is over, and the caller's own time is not.
func unanswered(caller context.Context, err error) error {
	if caller.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return banger.Errorf(banger.CodeTimeout, "the guest's agent does not answer").
		WithHint("see whether the VM works: banger logs VM; a stop and a start mend one that does not")
}

// repeated is again, for callTimeout at most.
func (c Client) repeated(caller context.Context, r Request) (Info, error) {
	ctx, cancel := context.WithTimeout(caller, callTimeout)
	defer cancel()
	info, err := c.again(ctx, r)
	return info, unanswered(caller, err)
}

// again makes a request that the guest may get twice, until it is answered. Firecracker
// before 1.16.0 accepts the first connection to a guest that goes on from a snapshot, and then
// cuts it, and a session with a guest that boots may have to be made anew: so an answer counts, and a connection does not.
func (c Client) again(ctx context.Context, r Request) (Info, error) {
	var cut error // of the connection before
	for {
		info, err := c.call(ctx, r)
		switch {
		case isCut(err):
			cut = err
		case cut != nil && ctx.Err() != nil:
			return info, cut // says more than ctx does
		default:
			return info, err
		}
		select {
		case <-ctx.Done():
			return info, cut
		case <-time.After(repeatAfter): // nothing tells when the guest is ready
		}
	}
}

// isCut says that a connection ended before an answer began.
func isCut(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func (c Client) call(ctx context.Context, r Request) (Info, error) {
	var info Info
	conn, err := c.send(ctx, r)
	if err != nil {
		return info, err
	}
	return info, answer(ctx, conn, banger.FrameResponse, &info)
}

func (c Client) send(ctx context.Context, r Request) (net.Conn, error) {
	conn, err := c.Dial(ctx)
	if err != nil {
		return nil, err
	}
	if r.Config != nil { // the guest has booted meanwhile
		config := *r.Config
		config.TimeUnixNano = time.Now().UnixNano()
		r.Config = &config
	}
	return sendOn(ctx, conn, r)
}

// sendOn makes a request over conn, which it closes if that fails.
func sendOn(ctx context.Context, conn net.Conn, r Request) (net.Conn, error) {
	stop := context.AfterFunc(ctx, func() { conn.SetWriteDeadline(time.Unix(1, 0)) })
	err := banger.WriteJSONFrame(conn, banger.FrameRequest, r)
	if !stop() {
		conn.Close()
		return nil, ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("asking the agent to %s: %w", r.Op, err)
	}
	return conn, nil
}

// answer reads the one frame that answers a request, and closes conn.
func answer(ctx context.Context, conn net.Conn, want banger.FrameType, v any) error {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })()
	t, p, err := banger.NewFrameReader(conn).Next()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return banger.Errorf(banger.CodeGuest, "the agent did not answer: %w", err)
	case t == banger.FrameError:
		return agentError(p)
	case t != want:
		return banger.Errorf(banger.CodeGuest, "the agent answered with frame %d instead of %d", t, want)
	}
	if err := json.Unmarshal(p, v); err != nil {
		return banger.Errorf(banger.CodeGuest, "the agent's answer is broken: %w", err)
	}
	return nil
}
