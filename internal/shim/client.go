package shim

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"banger"
	"banger/internal/process"
	"banger/internal/untrusted"
	"banger/internal/vmm"
)

// Client is the daemon's end of the shim in one directory. It holds no connection and no state, so a restarted daemon
// can simply make a new one.
type Client struct {
	Dir string // durable files: spec, console log, exit record
	Run string // sockets; may vanish at a reboot of the host
}

// Identity is the user and the control group of a shim and its VMM. The zero value keeps those of the caller.
type Identity struct {
	UID, GID uint32
	Groups   []uint32
	Group    *os.File // directory of the control group; nil means the caller's group
}

// Start starts a shim for spec in the existing directories c.Dir and c.Run, and returns when the VMM runs. argv is
// the command that ends in Run; Start appends the directory to it. sockets are the sockets of the network's forwards,
// in their order; the shim gets copies.
func (c Client) Start(ctx context.Context, argv []string, spec Spec, id Identity, sockets ...*os.File) error {
	spec.Run, spec.Daemon = c.Run, uint32(os.Geteuid())
	data, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	if err := untrusted.WriteFile(filepath.Join(c.Dir, SpecFile), data, 0o600); err != nil {
		return err
	}
	stderr, err := untrusted.Create(filepath.Join(c.Dir, ErrorFile), 0o600)
	if err != nil {
		return err
	}
	defer stderr.Close()
	files, err := c.handOver(spec)
	if err != nil {
		return err
	}
	defer closeAll(files)
	if id.UID != 0 && spec.Jail == nil {
		err := errors.Join(untrusted.Give(c.Dir, int(id.UID), int(id.GID)), untrusted.Give(c.Run, int(id.UID), int(id.GID)))
		if err != nil {
			return err
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command(argv[0], append(argv[1:], c.Dir)...)
	// The VM's user may not be able to reach its directory by the path.
	cmd.Dir, cmd.Stderr = Descriptor(int(files[0].Fd())), stderr
	cmd.ExtraFiles = slices.Concat([]*os.File{w}, files, sockets)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.SysProcAttr = attributes(spec, id)
	err = cmd.Start()
	w.Close()
	if err != nil {
		return fmt.Errorf("starting the shim: %w", err)
	}
	reaped := make(chan struct{})
	go func() { // waits for the child, which would otherwise become a zombie
		cmd.Wait()
		close(reaped)
	}()
	if err := awaitReady(ctx, r); err != nil {
		cmd.Process.Kill() // the VMM dies with the shim
		<-reaped
		return err
	}
	return nil
}

// attributes returns how a shim's process starts: in its VM's control group and as its VM's user, or, with a jail, as
// the first process of a PID namespace.
func attributes(spec Spec, id Identity) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setsid: true}
	if id.Group != nil {
		a.UseCgroupFD, a.CgroupFD = true, int(id.Group.Fd())
	}
	switch {
	case spec.Jail != nil:
		a.Cloneflags = syscall.CLONE_NEWPID
	case id.UID != 0:
		a.Credential = &syscall.Credential{Uid: id.UID, Gid: id.GID, Groups: id.Groups}
	}
	return a
}

// handOver opens the files for a shim's descriptors from fdState on. The caller must close them.
func (c Client) handOver(spec Spec) (files []*os.File, err error) {
	for _, dir := range []string{c.Dir, c.Run} {
		f, err := os.Open(dir)
		if err != nil {
			closeAll(files)
			return nil, err
		}
		files = append(files, f)
	}
	opened, _, err := spec.VM.OpenFiles()
	if err != nil {
		closeAll(files)
		return nil, err
	}
	return append(files, opened.Files()...), nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
func awaitReady(ctx context.Context, r *os.File) error {
	err := process.AwaitReady(ctx, r)
	if errors.Is(err, process.ErrSilent) {
		return errors.New("the shim ended before the VM ran")
	}
	return err
}

// Dial opens a stream to a port of the guest's agent. It waits while the guest boots, until ctx ends.
func (c Client) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	conn, err := c.dial(ctx, CallConnect, port)
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// errUnknownCall means that the shim is older than the call.
var errUnknownCall = errors.New("connecting to the agent: the shim is of an older banger")

func (c Client) dial(ctx context.Context, call string, port uint32) (*net.UnixConn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	conn, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	line := ""
	if _, err = fmt.Fprintf(conn, "%s %d\n", call, port); err == nil {
		line, err = ReadLine(conn)
	}
	if !stop() {
		err = ctx.Err()
	}
	problem, failed := strings.CutPrefix(line, "ERR ")
	switch {
	case err != nil:
		err = fmt.Errorf("connecting to the agent: %w", err)
	case failed:
		code := banger.CodeGuest
		if strings.HasSuffix(problem, AllTaken) {
			code = banger.CodeConflict
		}
		err = banger.Errorf(code, "connecting to the agent: %s", problem)
	case !strings.HasPrefix(line, "OK "):
		err = errUnknownCall
	default:
		return conn, nil
	}
	conn.Close()
	return nil, err
}

// Status returns the shim's status. An error means that no shim answers.
func (c Client) Status(ctx context.Context) (Status, error) { return c.call(ctx, CallStatus) }

// Watch returns when the VMM has ended, or with an error when the shim has died or ctx ends.
func (c Client) Watch(ctx context.Context) (Status, error) { return c.exchange(ctx, CallWatch, nil) }

// Kill ends the VMM at once and returns when it has ended. It returns no error if there is no shim.
func (c Client) Kill(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, killTime)
	defer cancel()
	_, err := c.exchange(ctx, CallKill, nil)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil
	}
	return err
}

// FollowConsole writes the last tail lines of the console (all if tail is negative) and new output to w until the VMM
// ends (it then returns nil) or ctx ends.
func (c Client) FollowConsole(ctx context.Context, tail int, w io.Writer) error {
	return c.stream(ctx, fmt.Sprintf("%s %d", CallConsole, tail), w)
}

// FollowOutput writes what v selects of the main command's output, also of what comes later, to w until the VMM ends or
// v.Until is over (it then returns nil), or ctx ends. It writes frames of frame.Stdout and frame.Stderr, and of
// frame.Stamp if v wants them. A shim of an earlier banger knows only v.Tail.
func (c Client) FollowOutput(ctx context.Context, v banger.LogView, w io.Writer) error {
	return c.stream(ctx, CallOutput+" "+FormatView(v), w)
}

// stream makes a call with an endless answer. Because the first bytes may come late, it first asks whether the shim
// answers at all.
func (c Client) stream(ctx context.Context, call string, w io.Writer) error {
	if _, err := c.Status(ctx); err != nil {
		return err
	}
	conn, err := c.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := fmt.Fprintln(conn, call); err != nil {
		return err
	}
	_, err = io.Copy(w, conn)
	return err
}

// Stats returns the counters of the VM's devices, and the VMM's process.
func (c Client) Stats(ctx context.Context) (Status, error) { return c.call(ctx, CallStats) }

// Pause stops the guest's CPUs. Resume lets them continue.
func (c Client) Pause(ctx context.Context) error {
	_, err := c.call(ctx, CallPause)
	return err
}

// Resume undoes Pause.
func (c Client) Resume(ctx context.Context) error {
	_, err := c.call(ctx, CallResume)
	return err
}

func (c Client) connect(ctx context.Context) (*net.UnixConn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", filepath.Join(c.Run, SocketFile))
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

func (c Client) call(ctx context.Context, name string) (Status, error) {
	return c.brief(ctx, name, nil)
}

// Time limits for a shim's answers. The shim limits its own work by CallTime and ConnectTime.
const (
	answerTime = CallTime + 5*time.Second
	dialTime   = ConnectTime + 5*time.Second
	killTime   = 30 * time.Second
)

// brief is like exchange, for a call that the shim answers soon.
func (c Client) brief(ctx context.Context, line string, oob []byte) (Status, error) {
	within, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	st, err := c.exchange(within, line, oob)
	if within.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("the VM's shim does not answer within %s; if it was stopped, let it go on: kill -CONT: %w",
			answerTime, err)
	}
	return st, err
}

// exchange makes a call, with ancillary data if oob is not empty.
func (c Client) exchange(ctx context.Context, line string, oob []byte) (Status, error) {
	return c.exchangeBy(ctx, line, oob, func(conn *net.UnixConn) (io.Reader, error) { return conn, nil })
}

// exchangeBy is exchange for an answer that begins with more than its status. answer reads that, and returns the rest.
func (c Client) exchangeBy(ctx context.Context, line string, oob []byte,
	answer func(*net.UnixConn) (io.Reader, error)) (Status, error) {
	conn, err := c.connect(ctx)
	if err != nil {
		return Status{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	line += "\n"
	if _, _, err := conn.WriteMsgUnix([]byte(line[:1]), oob, nil); err != nil {
		return Status{}, err
	}
	if _, err := io.WriteString(conn, line[1:]); err != nil {
		return Status{}, err
	}
	var st Status
	rest, err := answer(conn)
	if err == nil {
		err = json.NewDecoder(bufio.NewReader(io.LimitReader(rest, maxAnswer))).Decode(&st)
	}
	if err != nil {
		if ctx.Err() != nil {
			return Status{}, ctx.Err()
		}
		return Status{}, fmt.Errorf("the shim went away: %w", err)
	}
	if st.Error != "" && st.Code == banger.CodeDisk {
		return st, banger.Errorf(st.Code, "%s", st.Error)
	}
	if st.Error != "" {
		return st, errors.New(st.Error)
	}
	return st, nil
}

// maxAnswer is the maximum length in bytes of the answer to a call. The longest answer is a list of ports.
const maxAnswer = 4 << 20

// Lost returns how a VMM ended whose shim does not answer, for the reason cause. rebooted says that the host has booted
// since.
func (c Client) Lost(rebooted bool, cause error) Status {
	exit, err := c.LastExit()
	if err != nil && rebooted {
		exit = vmm.Exit{Signal: int(syscall.SIGKILL), Reason: "the host went down"}
	} else if err != nil {
		exit = vmm.Exit{Signal: int(syscall.SIGKILL), Reason: fmt.Sprintf("its shim was killed (%v)", cause)}
	}
	return Status{Ended: true, Exit: exit}
}

// LastExit returns how the VMM ended, as the shim recorded it for a daemon that did not run at that time. It returns
// fs.ErrNotExist when the shim itself was killed.
func (c Client) LastExit() (vmm.Exit, error) {
	st, err := c.lastStatus()
	return st.Exit, err
}

func (c Client) lastStatus() (st Status, err error) {
	data, err := untrusted.ReadFile(filepath.Join(c.Dir, ExitFile), maxExit)
	if err == nil {
		err = json.Unmarshal(data, &st)
	}
	return st, err
}
