// Package connect finds the daemon of a user and starts one if none answers.
//
// It must not know what the daemon is asked for afterwards.
package connect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"banger"
	"banger/internal/api/client"
	"banger/internal/host"
	"banger/internal/private"
	"banger/internal/process"
)

// Daemon is the daemon of one run directory. It may not run yet.
type Daemon struct {
	paths   host.Paths
	client  *client.Client
	state   string // the state directory of the daemon that answered; "" before any answer
	version string // the version of that daemon

	elsewhere string            // the address of another host that has the daemon; "" for this one
	tell      func(line string) // shows the user what is no error
}

// New returns the daemon of paths, which client reaches.
func New(paths host.Paths, client *client.Client) *Daemon {
	return &Daemon{paths: paths, client: client}
}

// Through returns the daemon of another host, which client reaches and that host starts. address is for people. tell
// gets a line if that host has another version.
func Through(paths host.Paths, client *client.Client, address string, tell func(line string)) *Daemon {
	return &Daemon{paths: paths, client: client, elsewhere: address, tell: tell}
}

// StartTime is the maximum time for the start of a daemon, which may have VMs to adopt.
const StartTime = 60 * time.Second

// Connect makes sure that a daemon answers, and starts one if necessary.
func (d *Daemon) Connect(ctx context.Context) (*client.Client, error) {
	if d.elsewhere != "" {
		return d.client, d.reach(ctx)
	}
	if err := private.Make(d.paths.Run, host.DirMode()); err != nil {
		return nil, err
	}
	if !d.Runs(ctx) {
		if err := d.startOnce(ctx); err != nil {
			if refused, ok := errors.AsType[*banger.Error](err); ok {
				return nil, refused
			}
			return nil, banger.Errorf(banger.CodeUnavailable, "cannot start the daemon: %w", err)
		}
	}
	return d.client, d.sameState()
}

// reach makes sure that the daemon of another host answers. The user may have to type a password first, so only the end
// of ctx bounds that.
func (d *Daemon) reach(ctx context.Context) error {
	if d.version != "" {
		return nil
	}
	v, err := d.client.Version(ctx)
	if err != nil {
		return err
	}
	d.state, d.version = v.State, v.Version
	if differs := Differs(v.Version); differs != "" {
		d.tell(d.elsewhere + " has " + differs)
	}
	return nil
}

// sameState returns an error if the daemon that answered last keeps its VMs in another directory than
// BANGER_STATE_DIR.
func (d *Daemon) sameState() error {
	if os.Getenv("BANGER_STATE_DIR") == "" || d.state == "" || sameDir(d.state, d.paths.State) {
		return nil
	}
	return banger.Errorf(banger.CodeConflict, "the daemon in %s keeps its VMs in %s, not in BANGER_STATE_DIR, %s",
		d.paths.Run, d.state, d.paths.State).
		WithHint("set BANGER_RUN_DIR to another directory as well")
}

func sameDir(a, b string) bool {
	if a == b {
		return true
	}
	ai, aerr := os.Stat(a)
	bi, berr := os.Stat(b)
	return aerr == nil && berr == nil && os.SameFile(ai, bi)
}

// Runs reports whether a daemon answers a request. A connection alone proves nothing, because the socket of a
// dying daemon still accepts connections. An error that the daemon returns counts as an answer.
func (d *Daemon) Runs(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, StartTime)
	defer cancel()
	v, err := d.client.Version(ctx)
	d.state, d.version = v.State, v.Version
	return err == nil || banger.CodeOf(err) != banger.CodeUnavailable
}

// Restart says how a daemon of another version is replaced.
const Restart = "restart it: banger daemon stop; VMs go on running, and the next command starts a new one"

// Differs says that a daemon of a version is not of this client's. It returns "" if it is.
func Differs(version string) string {
	if version == banger.Version {
		return ""
	}
	return "version " + version + ", but this client is " + banger.Version
}

// Differs says that the daemon that answered last is of another version than this client, and what to do. It returns ""
// if it is not.
func (d *Daemon) Differs() string {
	if differs := Differs(d.version); differs != "" && d.version != "" {
		return "the daemon is " + differs + " (" + Restart + ")"
	}
	return ""
}

// startOnce starts the daemon unless another client has already started it.
func (d *Daemon) startOnce(ctx context.Context) error {
	release, err := d.Hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	if d.Runs(ctx) {
		return nil
	}
	return d.start(ctx)
}

// Hold makes the state directory, and takes the lock under which clients start daemons, write files of their own and
// remove all of banger.
func (d *Daemon) Hold(ctx context.Context) (release func(), err error) {
	return d.HoldFile(ctx, "daemon.start")
}

// HoldFile makes the state directory, and takes the lock on a file in it.
func (d *Daemon) HoldFile(ctx context.Context, name string) (release func(), err error) {
	if err := private.Make(d.paths.State, host.DirMode()); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(d.paths.State, name), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lock(ctx, f); err != nil {
		return nil, err
	}
	return func() { f.Close() }, nil // which also releases the lock
}

// lock locks f, which another client may have locked. After an error f is closed, or will be: a
// wait for a lock cannot be ended, and the descriptor must not become another file's meanwhile.
func lock(ctx context.Context, f *os.File) error {
	locked := make(chan error)
	go func() { // ends with the other client
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		select {
		case locked <- err:
			if err != nil {
				f.Close()
			}
		case <-ctx.Done():
			f.Close()
		}
	}()
	select {
	case err := <-locked:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// LogPath returns the path of the file to which a started daemon writes its log.
func (d *Daemon) LogPath() string { return filepath.Join(d.paths.State, "daemon.log") }

// start starts `banger daemon run` as a process of its own and returns when the daemon is ready. The child
// writes "ready" or its error to a pipe.
func (d *Daemon) start(ctx context.Context) error {
	logFile, err := os.OpenFile(d.LogPath(), os.O_WRONLY|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer logFile.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe", "daemon", "run", "--ready-fd=3")
	cmd.Args[0] = "banger"
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, StartTime)
	defer cancel()
	err = process.AwaitReady(ctx, r)
	if errors.Is(err, process.ErrSilent) {
		return fmt.Errorf("it ended at once; see %s", d.LogPath())
	}
	return err
}
