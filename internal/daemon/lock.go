package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"banger"
	"banger/internal/host"
	"banger/internal/private"
	"banger/internal/shim"
	"banger/internal/vmdir"
)

const (
	lockFile = "daemon.lock"
	// lockWait is the time that a killed daemon may need to release its locks.
	lockWait = 3 * time.Second
)

// own makes the directories, takes the lock of each, and removes other users' rights to their content. It returns an
// error if another daemon has one of the directories, or if VMs are running that use one of them together with a
// third directory.
func own(o Options) (release func(), err error) {
	for _, dir := range []string{o.StateDir, o.RunDir} {
		if err := private.Make(dir, host.DirMode()); err != nil {
			return nil, err
		}
		if err := private.CheckEntries(dir); err != nil {
			return nil, err
		}
	}
	// A daemon must start on a full disk, because it is needed to free space there.
	if _, err := reserveOf(o.StateDir).ReleaseIfFull(); err != nil {
		return nil, err
	}
	state, before, err := private.Take(o.StateDir, lockFile, lockWait)
	if err != nil {
		return nil, taken(err, "state directory "+o.StateDir, before)
	}
	run, lodger, err := private.Take(o.RunDir, lockFile, lockWait)
	if err != nil {
		err = taken(err, "run directory "+o.RunDir, lodger)
	}
	release = func() {
		state.Release()
		if run != nil {
			run.Release()
		}
	}
	if err == nil {
		err = errors.Join(sameRun(o, before), sameState(o, lodger))
	}
	me := private.Owner{PID: os.Getpid(), State: o.StateDir, Run: o.RunDir}
	if err == nil {
		err = errors.Join(state.Write(me), run.Write(me), removeHalves(o.StateDir), restrict(o.StateDir))
	}
	if err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// taken returns the error for a lock that could not be taken. It names the daemon that holds the directory, if the
// lock file does.
func taken(err error, what string, by private.Owner) error {
	if !errors.Is(err, private.ErrLocked) {
		return banger.Errorf(banger.CodeUnavailable, "cannot take the lock of the %s: %w", what, err)
	}
	if by.PID == 0 {
		return banger.Errorf(banger.CodeConflict, "another daemon has the %s", what).WithHint("see: banger daemon status")
	}
	return banger.Errorf(banger.CodeConflict,
		"another daemon, process %d, has the %s; its state directory is %s and its run directory %s", by.PID, what, by.State,
		by.Run).
		WithHint("use that one: BANGER_STATE_DIR=%s BANGER_RUN_DIR=%s", by.State, by.Run)
}

// sameRun returns an error if running VMs of this state have their sockets in another run directory. This daemon
// could not reach them, and would start them twice.
func sameRun(o Options, before private.Owner) error {
	if before.Run == "" || before.Run == o.RunDir || !running(o.StateDir) {
		return nil
	}
	return banger.Errorf(banger.CodeConflict, "VMs of the state directory %s run, and their sockets are in %s, not in %s",
		o.StateDir, before.Run, o.RunDir).
		WithHint("use BANGER_RUN_DIR=%s, or stop these VMs first", before.Run)
}

// sameState returns an error if running VMs of another state have their sockets in this run directory. This daemon
// would remove these sockets.
func sameState(o Options, lodger private.Owner) error {
	if lodger.State == "" || lodger.State == o.StateDir || !running(lodger.State) {
		return nil
	}
	return banger.Errorf(banger.CodeConflict,
		"the run directory %s holds sockets of running VMs of the state directory %s", o.RunDir, lodger.State).
		WithHint("set BANGER_RUN_DIR to another directory, or stop these VMs first")
}

// removeHalves removes files that a daemon was writing when it was killed. Stores remove such files of their own.
func removeHalves(stateDir string) (err error) {
	for _, pattern := range []string{"*.tmp", "vms/*.tmp"} {
		halves, gerr := filepath.Glob(filepath.Join(stateDir, pattern))
		err = errors.Join(err, gerr)
		for _, path := range halves {
			err = errors.Join(err, os.Remove(path))
		}
	}
	return err
}

// restrict corrects the modes of files that an earlier banger made below the state directory. It skips directories in
// which a VM's own user has files; the code for those corrects their modes.
func restrict(dir string) error {
	dirs := vmdir.Dirs{State: dir}
	elsewhere := map[string]bool{dirs.VMs(): true, dirs.Templates(): true}
	if os.Geteuid() == 0 {
		elsewhere[filepath.Join(dir, "images")], elsewhere[filepath.Join(dir, "kernels")] = true, true
	}
	return private.Restrict(dir, 0o077, func(path string) bool { return elsewhere[path] })
}

// running reports whether a VM of a state directory runs, with or without a daemon.
func running(state string) bool {
	return shim.Processes{VMs: vmdir.Dirs{State: state}.VMs(), Argv: shimArgv}.Any()
}
