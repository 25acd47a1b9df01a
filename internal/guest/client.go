// Package guest holds the requests of the host to the agent in a guest, and the host's end of them, Client. Each
// stream carries one request. Package agent answers the requests.
//
// Everything that the agent answers is considered hostile: every length is bounded, and every text is made printable.
// The package must not know which VMM carries the streams, or how they are made.
package guest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"banger"
	"banger/internal/frame"
	"banger/internal/text"
)

// Version and Oldest are the newest and the oldest version of requests and answers that this end speaks. Info contains
// the agent's. A change that an earlier end ignores needs no new version: a new field, or a new operation, which is a
// capability.
const (
	Version = 4
	Oldest  = 4
)

// AgentPort is the port on which the agent answers requests.
const AgentPort = 1

// The operations of a request.
const (
	OpConfigure = "configure" // completes the boot; answers Info
	// OpRestored turns a guest that was restored from a snapshot into another VM. It answers Info.
	OpRestored = "restored"
	// OpSuspend prepares the guest for a snapshot: it ends the streams of commands and copies, writes the disks and stops
	// all processes. It answers Info. If the stream ends before that, everything goes on. OpRestored and OpThaw end it.
	OpSuspend  = "suspend"
	OpThaw     = "thaw"          // lets the processes go on that OpSuspend has stopped, as before; answers Info
	OpPing     = "ping"          // answers Info
	OpHealth   = "health"        // answers banger.Readiness; with Wait, when it is ready
	OpReady    = "ready"         // answers Info when the image's init accepts commands
	OpExec     = "exec"          // runs a command; the stream becomes its stdio
	OpAttach   = "attach"        // like OpExec, with the main command that runs already
	OpStart    = "start"         // runs the main command without a client; answers Info
	OpWait     = "wait"          // answers with frame.Exit when the main command has ended
	OpSignal   = "signal"        // signals the main command; answers Info
	OpChanges  = "changes"       // answers with frames of output, the tar of a layer, and frame.Exit at the end
	OpFileStat = banger.FileStat // answers banger.FileInfo
	OpFileList = banger.FileList // answers banger.FileInfo with entries
	// OpArchive answers with frames of output, a tar, and at the end with frame.Exit, a banger.CopyReport.
	OpArchive = banger.FileArchive
	// OpExtract takes frames of stdin, a tar, up to frame.StdinEOF. It answers banger.CopyReport.
	OpExtract = banger.FileExtract
	// OpOutput answers with what the main command writes, from the byte at Position on: frames of output, each with a
	// RecordHeader, and an empty frame.Exit at the end. The client answers frame.Taken, which makes room for more.
	OpOutput    = "output"
	OpProcesses = "processes" // answers with the processes of the guest
	OpPorts     = "ports"     // answers with the listening sockets of the guest, and again after each change
	OpOwner     = "owner"     // answers which process has a socket
	// OpClock corrects the clock if the request has a correction. It answers Info with the time of the clock after that.
	OpClock = "clock"
	OpDial  = "dial" // answers Info; the stream is then connected to a TCP port of the guest's loopback
	OpSSH   = "ssh"  // answers Info; the stream then carries the SSH protocol
	// The operations on sessions answer a banger.Session, or a list of them, unless they say otherwise.
	OpSessions      = "sessions"
	OpSession       = "session"
	OpSessionStart  = "session-start"
	OpSessionSignal = "session-signal"
	OpSessionStop   = "session-stop" // answers when the session has ended, after Grace at the latest
	OpSessionRemove = "session-remove"
	OpSessionWait   = "session-wait" // answers when the session has ended
	// OpSessionSend takes frames of stdin up to StdinEOF, and answers when the command has all of them.
	OpSessionSend = "session-send"
	// OpSessionAttach answers Started, perhaps Screen, then each record of output as Stamp and data, and Exit with the
	// banger.Session at the end. The client may send the frames that a client of OpExec sends.
	OpSessionAttach = "session-attach"
	// OpDelivered answers Info when the host has all output of the main command, which has ended, and its clients know of
	// the end.
	OpDelivered = "delivered"
	OpShutdown  = "shutdown" // answers Info, then powers off
)

// Request is the first frame of a stream.
type Request struct {
	Op       string       `json:"op"`
	Config   *Config      `json:"config,omitempty"`
	Exec     *banger.Exec `json:"exec,omitempty"`
	Signal   int          `json:"signal,omitempty"`
	Port     uint16       `json:"port,omitempty"`     // of OpDial and OpOwner
	Protocol string       `json:"protocol,omitempty"` // of OpOwner: tcp or udp

	File *banger.FileRequest `json:"file,omitempty"`
	SSH  *banger.SSH         `json:"ssh,omitempty"`

	Clock *Correction `json:"clock,omitempty"` // of OpClock; nil means no correction

	Position uint64 `json:"position,omitempty"` // of OpOutput

	Size frame.Resize `json:"size,omitzero"`  // of OpAttach: that of the client's terminal
	Keep bool         `json:"keep,omitempty"` // of OpSuspend: the streams stay, because the guest goes on at once

	Wait    int64           `json:"wait_ms,omitempty"` // of OpHealth and OpSessionReady: how long the answer may take
	Session *SessionRequest `json:"session,omitempty"`

	Workspace *WorkspaceRequest `json:"workspace,omitempty"`
	Secrets   *SecretsRequest   `json:"secrets,omitempty"`
	Grace     int64             `json:"grace_ms,omitempty"`
	Patch     bool              `json:"patch,omitempty"` // of OpCompare: also compare text by lines
}

// Config is what the host sends to a guest at each boot.
type Config struct {
	Hostname     string   `json:"hostname"`
	TimeUnixNano int64    `json:"time_unix_nano"`        // set by Client when the guest is ready to read it
	StopSignal   int      `json:"stop_signal,omitempty"` // for the main command; 0 means SIGTERM
	Network      *Network `json:"network,omitempty"`
	SSHHostKey   string   `json:"ssh_host_key,omitempty"` // a private key in OpenSSH's format
	CA           string   `json:"ca,omitempty"`           // certificates to trust, in PEM
	Nested       bool     `json:"nested,omitempty"`       // load the modules for running VMs in the guest
	Dirs         []string `json:"dirs,omitempty"`         // absolute; made for root with mode 0755 where they are missing

	ReadOnly bool               `json:"read_only,omitempty"` // make the root read-only, but not Volumes and Tmpfs
	Volumes  []string           `json:"volumes,omitempty"`   // those of Dirs that stay writable
	Tmpfs    []banger.Tmpfs     `json:"tmpfs,omitempty"`
	Hosts    []banger.HostEntry `json:"hosts,omitempty"` // more lines of /etc/hosts
	Confine  banger.Confinement `json:"confine,omitzero"`
	Ready    *banger.Probe      `json:"ready,omitempty"`   // is tried while the main command runs
	NoMain   bool               `json:"no_main,omitempty"` // it is tried from when the guest's init obeys commands

	User    string            `json:"user,omitempty"`    // of the main command; the files of secrets belong to it
	Secrets map[string][]byte `json:"secrets,omitempty"` // values by name, which the guest adds to those that it has

	// For OpRestored: values that a guest must not share with other guests from the same snapshot.
	Seed      []byte `json:"seed,omitempty"`       // fresh randomness, at least MinSeed bytes
	MachineID string `json:"machine_id,omitempty"` // machine-id(5), for an image that has one; "" keeps it

	// ResetConnections is for OpRestored: reset the TCP connections with others than the guest itself at once, because
	// their other ends are gone.
	ResetConnections bool `json:"reset_connections,omitempty"`
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
	Search  []string `json:"search,omitempty"` // domains in which names without a dot are looked up
	MTU     int      `json:"mtu"`
	MAC     string   `json:"mac,omitempty"` // for OpRestored; "" keeps the present one
}

// ExtraCA is the file with the content of Config.CA, for programs with a trust store of their own.
const ExtraCA = "/etc/ssl/banger.pem"

// Info is the agent's description of itself.
type Info struct {
	Version int `json:"version"`
	Oldest  int `json:"oldest,omitempty"` // 0, of an agent from before the range, means Version
	// Capabilities are the operations that the agent knows. An agent from before the range lists none.
	Capabilities []string `json:"capabilities,omitempty"`

	Kernel       string `json:"kernel"`
	UptimeMillis int64  `json:"uptime_ms"`
	TimeUnixNano int64  `json:"time_unix_nano,omitempty"` // of OpClock: the time of the guest's clock
	// ClockSets is for OpClock: the number of times that the host has set or corrected the clock.
	ClockSets int64 `json:"clock_sets,omitempty"`
}

// callTimeout bounds a request that should be answered at once. It is long because a guest may be emulated on a busy
// host. It equals the maximum time for the start of a VM.
const callTimeout = 30 * time.Second

// repeatAfter is the pause before a request is repeated whose connection was cut.
const repeatAfter = 20 * time.Millisecond

// Client makes requests to one agent. Each request has a stream of its own, so a slow one does not delay others.
type Client struct {
	Dial func(context.Context) (net.Conn, error) // to AgentPort
}

// Configure completes the guest's boot. While the guest boots, it waits until ctx ends.
func (c Client) Configure(ctx context.Context, cfg Config) (Info, error) {
	return checked(c.again(ctx, Request{Op: OpConfigure, Config: &cfg}))
}

// Restored gives a guest that was restored from a snapshot a new identity: its clock, randomness, names, network and
// keys become those of cfg. It must be the first request. Programs in the guest keep running; those that Suspend has
// stopped go on once all this is done. Like Ping, it is repeated.
func (c Client) Restored(ctx context.Context, cfg Config) (Info, error) {
	return checked(c.repeated(ctx, Request{Op: OpRestored, Config: &cfg}))
}

// Suspend prepares the guest for a snapshot. The clients of commands and copies get an error that says so, and the
// commands are hung up, but not the main command. The disks are written, and no process runs when Suspend returns. The
// guest must then be continued by Restored or Thaw. If Suspend fails, or ctx ends, the guest goes on by itself, but an
// agent that does not answer may still need Thaw.
func (c Client) Suspend(ctx context.Context) (Info, error) {
	return c.call(ctx, Request{Op: OpSuspend})
}

// Hold is like Suspend for a VM that goes on right after its snapshot: the clients keep their streams, and what they
// begin waits for Thaw. A fork, which goes on by Restored, has none of these clients.
func (c Client) Hold(ctx context.Context) (Info, error) {
	return c.call(ctx, Request{Op: OpSuspend, Keep: true})
}

// Thaw lets a guest go on after Suspend or Hold, as the VM that it was. It does nothing for a guest that is not
// suspended. Like Ping, it is repeated.
func (c Client) Thaw(ctx context.Context) (Info, error) {
	return c.repeated(ctx, Request{Op: OpThaw})
}

// Ping checks that the agent answers. It is repeated, for up to 30 seconds or until ctx ends, while connections are
// cut before an answer arrives.
func (c Client) Ping(ctx context.Context) (Info, error) {
	return checked(c.repeated(ctx, Request{Op: OpPing}))
}

// Ready returns when the image's init accepts commands, if the guest runs it. ctx bounds the wait.
func (c Client) Ready(ctx context.Context) error {
	_, err := c.again(ctx, Request{Op: OpReady})
	return err
}

// Start runs the main command without a client.
func (c Client) Start(ctx context.Context, e banger.Exec) error {
	_, err := c.brief(ctx, Request{Op: OpStart, Exec: &e})
	return err
}

// Signal sends a signal to the main command's process group.
func (c Client) Signal(ctx context.Context, sig int) error {
	_, err := c.brief(ctx, Request{Op: OpSignal, Signal: sig})
	return err
}

// Shutdown asks the guest to stop its programs within grace, sync, unmount and power off. It returns when the agent
// has accepted the request.
func (c Client) Shutdown(ctx context.Context, grace time.Duration) error {
	_, err := c.brief(ctx, Request{Op: OpShutdown, Grace: grace.Milliseconds()})
	return err
}

// Delivered returns when the host has all output of the main command, which has ended, and its clients know of the end,
// or when they read too slowly.
func (c Client) Delivered(ctx context.Context) error {
	_, err := c.brief(ctx, Request{Op: OpDelivered})
	return err
}

// Exec starts a command and returns its stream: frames in both directions, with frame.Exit or frame.Error at the end.
// The caller must close the stream, which ends the command unless it is the main command. The stream of the main
// command carries none of its output: Output has that.
func (c Client) Exec(ctx context.Context, e banger.Exec) (net.Conn, error) {
	return c.send(ctx, Request{Op: OpExec, Exec: &e})
}

// Attach connects with the main command, which runs already, as Exec does with a new command. Closing the stream leaves
// it running. size is that of the client's terminal, or zero.
func (c Client) Attach(ctx context.Context, size frame.Resize) (net.Conn, error) {
	return c.send(ctx, Request{Op: OpAttach, Size: size})
}

// Changes returns the tar of a layer with all differences from the image. It returns io.EOF only if the agent has
// sent the complete tar. The caller must close it.
func (c Client) Changes(ctx context.Context) (io.ReadCloser, error) {
	conn, err := c.send(ctx, Request{Op: OpChanges})
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	return &changes{ctx: ctx, conn: conn, frames: frame.NewReader(conn), stop: stop}, nil
}

// changesTime is how long the agent may be silent while it sends changes. It may have to examine many files between
// two changes.
const changesTime = 2 * time.Minute

// changes reads the frames of one answer as bytes.
type changes struct {
	ctx    context.Context // context of the whole answer
	conn   net.Conn
	frames *frame.Reader
	left   []byte
	stop   func() bool
}

func (c *changes) Read(p []byte) (int, error) {
	for len(c.left) == 0 {
		c.conn.SetReadDeadline(time.Now().Add(changesTime))
		if c.ctx.Err() != nil { // the deadline of the end of ctx may have been replaced
			return 0, c.ctx.Err()
		}
		t, data, err := c.frames.Next()
		switch {
		case c.ctx.Err() == nil && errors.Is(err, os.ErrDeadlineExceeded):
			return 0, banger.Errorf(banger.CodeTimeout,
				"the guest's agent is silent: for %s nothing came of the changes", changesTime).
				WithHint("see whether the VM works: banger logs --console VM; a stop and a start mend one that does not")
		case err != nil:
			return 0, banger.Errorf(banger.CodeGuest, "the agent did not send all changes: %w", err)
		case t == frame.Error:
			return 0, agentError(data)
		case t == frame.Exit:
			return 0, io.EOF
		case t != frame.Stdout:
			return 0, banger.Errorf(banger.CodeGuest, "the agent answered with frame %d instead of %d", t, frame.Stdout)
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

// Wait returns how the main command ended, after it has ended.
func (c Client) Wait(ctx context.Context) (banger.Exit, error) {
	var exit banger.Exit
	conn, err := c.send(ctx, Request{Op: OpWait})
	if err != nil {
		return exit, err
	}
	return exit, answer(ctx, conn, frame.Exit, &exit)
}

func (c Client) brief(caller context.Context, r Request) (Info, error) {
	ctx, cancel := context.WithTimeout(caller, callTimeout)
	defer cancel()
	info, err := c.call(ctx, r)
	return info, unanswered(caller, err)
}

// unanswered returns the error for an agent that did not answer in time, unless the caller's own context has ended.
func unanswered(caller context.Context, err error) error {
	if caller.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return banger.Errorf(banger.CodeTimeout, "the guest's agent does not answer").
		WithHint("see whether the VM works: banger logs --console VM; a stop and a start mend one that does not")
}

// repeated calls again, for callTimeout at most.
func (c Client) repeated(caller context.Context, r Request) (Info, error) {
	ctx, cancel := context.WithTimeout(caller, callTimeout)
	defer cancel()
	info, err := c.again(ctx, r)
	return info, unanswered(caller, err)
}

// Check returns an error if this end and the agent of i have no version in common.
func (i Info) Check() error {
	theirs := banger.Versions{Newest: i.Version, Oldest: i.Oldest}
	if theirs.Meet(banger.Versions{Newest: Version, Oldest: Oldest}) {
		return nil
	}
	return banger.Errorf(banger.CodeVersion,
		"the guest's agent answers versions %d to %d of requests, and this banger makes %d to %d",
		cmp.Or(i.Oldest, i.Version), i.Version, Oldest, Version).
		WithHint("use the banger that the VM was started with, or stop and start the VM")
}

// Can reports whether the agent of i knows an operation.
func (i Info) Can(op string) bool { return slices.Contains(i.Capabilities, op) }

// again makes a request that the guest may get twice, until it is answered. A connection alone is not enough:
// Firecracker before 1.16.0 accepts the first connection to a restored guest and then cuts it, and the session with a
// guest that boots may have to be made again.
func (c Client) again(ctx context.Context, r Request) (Info, error) {
	var cut error // error of the connection before
	for {
		info, err := c.call(ctx, r)
		switch {
		case isCut(err):
			cut = err
		case cut != nil && ctx.Err() != nil:
			return info, cut // cut says more than the error of ctx
		default:
			return info, err
		}
		select {
		case <-ctx.Done():
			return info, cut
		case <-time.After(repeatAfter): // there is no event for a guest that is ready
		}
	}
}

// isCut reports whether a connection ended before an answer began.
func isCut(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func (c Client) call(ctx context.Context, r Request) (Info, error) {
	var info Info
	conn, err := c.send(ctx, r)
	if err != nil {
		return info, err
	}
	return info, answer(ctx, conn, frame.Response, &info)
}

// checked adds the error of an agent that this end cannot speak with. The requests with which the host begins use it.
func checked(info Info, err error) (Info, error) {
	if err == nil {
		err = info.Check()
	}
	return info, err
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

// sendOn makes a request over conn, and closes conn if that fails.
func sendOn(ctx context.Context, conn net.Conn, r Request) (net.Conn, error) {
	stop := context.AfterFunc(ctx, func() { conn.SetWriteDeadline(time.Unix(1, 0)) })
	err := frame.WriteJSON(conn, frame.Request, r)
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

// answer reads the single frame that answers a request, and closes conn.
func answer(ctx context.Context, conn net.Conn, want frame.Type, v any) error {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })()
	t, p, err := frame.NewReader(conn).Next()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return banger.Errorf(banger.CodeGuest, "the agent did not answer: %w", err)
	case t == frame.Error:
		return agentError(p)
	case t != want:
		return banger.Errorf(banger.CodeGuest, "the agent answered with frame %d instead of %d", t, want)
	}
	if err := json.Unmarshal(p, v); err != nil {
		return banger.Errorf(banger.CodeGuest, "the agent's answer is broken: %w", err)
	}
	return nil
}
