// Package reset finds what banger keeps on this host for one user, and removes it: processes, control groups, networks
// of root, and files. It needs neither a daemon nor a database, because the directories decide.
//
// It must not know what the files are for, how a user asks for this, or what was installed outside of the two
// directories.
package reset

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"banger"
	"banger/internal/blob"
	"banger/internal/cgroup"
	"banger/internal/network/bridge"
	"banger/internal/private"
	"banger/internal/process"
	"banger/internal/shim"
	"banger/internal/untrusted"
	"banger/internal/vmdir"
)

// The locks of the two directories. Clients take startLock while they start a daemon, and a daemon holds the other
// one in each directory.
const (
	startLock  = "daemon.start"
	daemonLock = "daemon.lock"
	uiLock     = "ui.lock"
)

// How long Remove waits.
const (
	startWait = 60 * time.Second       // for a client that starts a daemon
	firstWait = 100 * time.Millisecond // for a process that only looks whether a lock is free
	lockWait  = 3 * time.Second        // for a daemon that has ended, until its lock is free
	killWait  = 5 * time.Second        // for a process that was killed
)

// endWait is how long a daemon may take that was asked to end. A test changes it.
var endWait = 20 * time.Second

// Home is where one user's banger keeps its files, and how its processes are found.
type Home struct {
	State, Run string
	ShimArgv   []string // the command that starts a shim, without the directory of its VM
}

func (h Home) dirs() vmdir.Dirs { return vmdir.Dirs{State: h.State, Run: h.Run} }

func (h Home) shims() shim.Processes { return shim.Processes{VMs: h.dirs().VMs(), Argv: h.ShimArgv} }

// Remove removes everything that Look finds, except the entries of the state directory that keep names. It first takes
// the locks with which a daemon is started, so no daemon comes back meanwhile. What is removed last are those locks,
// so an interrupted Remove can be repeated. say gets a line for each step.
func Remove(ctx context.Context, h Home, keep []string, say func(step string)) error {
	if _, err := Look(h); err != nil {
		return err
	}
	if _, err := os.Lstat(h.State); errors.Is(err, fs.ErrNotExist) {
		return removeRun(h)
	}
	start, _, err := private.Take(h.State, startLock, startWait)
	if err != nil {
		return locked(err, h.State, 0)
	}
	defer start.Release()
	say("stopping the daemon")
	state, err := takeFromDaemon(ctx, h.State)
	if err != nil {
		return err
	}
	defer state.Release()
	if _, err := os.Lstat(h.Run); err == nil {
		run, err := takeFromDaemon(ctx, h.Run)
		if err != nil {
			return err
		}
		defer run.Release()
		ui, err := takeFrom(ctx, h.Run, uiLock, "webui")
		if err != nil {
			return err
		}
		defer ui.Release()
	}
	say("ending VMs")
	if err := endVMs(ctx, h); err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		say("removing networks")
		nothing := func(string, banger.Decision) {}
		networks := bridge.NewHost(h.State, nil, nothing, slog.New(slog.DiscardHandler))
		err := networks.Apply(ctx, bridge.Config{})
		networks.Close()
		if err != nil {
			return err
		}
	}
	say("removing files")
	if err := removeRun(h); err != nil {
		return err
	}
	return removeEntries(h.State, keep, []string{daemonLock, startLock})
}

// takeFromDaemon takes the lock that the daemon of dir holds, and ends that daemon.
func takeFromDaemon(ctx context.Context, dir string) (*private.Lock, error) {
	return takeFrom(ctx, dir, daemonLock, "daemon", "run")
}

// takeFrom takes a lock in dir, and ends the process that holds it, a banger with these words of a command line.
func takeFrom(ctx context.Context, dir, name string, words ...string) (*private.Lock, error) {
	wait := firstWait
	for tries := 0; ; tries++ {
		lock, owner, err := private.Take(dir, name, wait)
		if err == nil || !errors.Is(err, private.ErrLocked) || tries == 2 {
			return lock, locked(err, dir, owner.PID)
		}
		if err := end(ctx, dir, owner.PID, words); err != nil {
			return nil, err
		}
		wait = lockWait
	}
}

// end asks a process to end, and kills it if it does not. It must be a banger with these words of a command line.
func end(ctx context.Context, dir string, pid int, words []string) error {
	if pid <= 0 {
		return locked(private.ErrLocked, dir, 0)
	}
	watched, err := process.Watch(pid)
	if err != nil {
		return err
	}
	defer watched.Close()
	if args := process.Arguments(pid); len(args) <= len(words) || !slices.Equal(args[1:1+len(words)], words) {
		if args == nil {
			return nil // it has ended meanwhile
		}
		return locked(private.ErrLocked, dir, pid)
	}
	return stop(ctx, watched)
}

// stop asks a process to end, and kills it if it does not.
func stop(ctx context.Context, end process.End) error {
	for _, step := range []struct {
		signal syscall.Signal
		wait   time.Duration
	}{{syscall.SIGTERM, endWait}, {syscall.SIGKILL, killWait}} {
		if err := end.Signal(step.signal); err != nil {
			return err
		}
		limit, cancel := context.WithTimeout(ctx, step.wait)
		err := end.Wait(limit)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
	}
	return nil // the caller finds its lock still taken
}

// locked describes the error of taking a lock in dir, which a process holds.
func locked(err error, dir string, pid int) error {
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, private.ErrLocked):
		return banger.Errorf(banger.CodeUnavailable, "cannot take the lock of the directory %s: %w", dir, err)
	case pid == 0:
		return banger.Errorf(banger.CodeConflict, "another process holds the directory %s", dir).
			WithHint("end it, and try again")
	}
	return banger.Errorf(banger.CodeConflict, "process %d holds the directory %s", pid, dir).
		WithHint("end it, and try again")
}

// endVMs kills all shims, with which their VMMs end, and removes the control groups. Some VMs were about to become
// templates, or compare disks.
func endVMs(ctx context.Context, h Home) error {
	var ends []process.End
	find := func(d vmdir.Dirs) error {
		return shim.Processes{VMs: d.VMs(), Argv: h.ShimArgv}.Each(func(id string, pid int) {
			end, err := process.Watch(pid)
			if args := process.Arguments(pid); err == nil && len(args) > 0 && args[len(args)-1] == d.VM(id) {
				ends = append(ends, end) // it is still the process that was found
			} else if err == nil {
				end.Close()
			}
		})
	}
	err := errors.Join(find(h.dirs()), find(h.dirs().Making()), find(h.dirs().Helpers()))
	limit, cancel := context.WithTimeout(ctx, killWait)
	defer cancel()
	for _, end := range ends {
		err = errors.Join(err, end.Signal(syscall.SIGKILL))
	}
	for _, end := range ends {
		if end.Wait(limit) != nil {
			err = errors.Join(err, banger.Errorf(banger.CodeTimeout, "a process of a VM does not end").WithHint("try again"))
		}
		end.Close()
	}
	if err != nil {
		return err
	}
	return cgroup.RemoveAll(cgroup.NameOf(h.State))
}

// removeRun removes the run directory.
func removeRun(h Home) error { return removeEntries(h.Run, nil, []string{daemonLock, uiLock}) }

// removeEntries removes the entries of dir except those that keep names. If nothing is kept, it also removes the locks,
// at the end, and then dir itself if it is empty. It follows no symbolic link. All of it is durable.
func removeEntries(dir string, keep, locks []string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	kept := false
	for _, e := range entries {
		switch {
		case slices.Contains(keep, e.Name()):
			kept = true
		case !slices.Contains(locks, e.Name()) && !isForeign(e.Name()):
			if err := removeAll(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := blob.Sync(dir); err != nil || kept { // the locks mark the directory as ours
		return err
	}
	for _, name := range locks {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if os.Remove(dir) != nil { // a file system has something at its top, or is mounted here
		return blob.Sync(dir)
	}
	return blob.Sync(filepath.Dir(dir))
}

// removeAll removes a file or a directory. Some files may belong to the subordinate users of this user, as those that
// mmdebstrap unpacks: they are removed by a user namespace that has these users.
func removeAll(path string) error {
	err := untrusted.RemoveAll(path)
	if err == nil || os.Geteuid() == 0 || !errors.Is(err, fs.ErrPermission) {
		return described(path, err)
	}
	if exec.Command("unshare", "--map-root-user", "--map-auto", "--", "rm", "-rf", "--", path).Run() == nil {
		err = untrusted.RemoveAll(path)
	}
	return described(path, err)
}

func described(path string, err error) error {
	if err == nil {
		return nil
	}
	return banger.Errorf(banger.CodeDenied, "%s cannot be removed: %w", path, err).WithHint("sudo rm -rf %s", path)
}
