package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"banger"
	"banger/internal/shim"
	"banger/internal/untrusted"
	"banger/internal/vmm"
)

// adoptTimeout bounds the question to one shim at the daemon's start.
const adoptTimeout = 5 * time.Second

// Restore takes over what an earlier daemon left: VMs that run are adopted, VMs
// that ended meanwhile get their reason, half-made VMs are undone, and whatever
// bears our prefix and no row claims is removed.
func (s *Supervisor) Restore(ctx context.Context) error {
	rows, err := s.opts.Store.List(ctx)
	if err != nil {
		return err
	}
	claimed := map[string]bool{}
	for _, r := range rows {
		if r.Committed {
			claimed[r.VM.ID] = true
		}
	}
	// First of all, so that no orphan writes to files of a VM that is adopted.
	if err := s.sweep(claimed); err != nil {
		return err
	}
	s.setAdopting(true)
	defer s.setAdopting(false)
	var restored sync.WaitGroup
	for _, r := range rows {
		if !r.Committed {
			if err := s.opts.Store.Delete(ctx, r.VM.ID); err != nil {
				return err
			}
			continue
		}
		restored.Go(func() { s.restoreOne(ctx, r.VM, r.Slot) })
	}
	restored.Wait()
	s.setAdopting(false)
	s.syncBridge(ctx) // an error is logged there, and VMs of other networks do not depend on it
	return nil
}

// restoreOne adopts one VM by asking its shim.
func (s *Supervisor) restoreOne(ctx context.Context, vm banger.VM, slot int) {
	if vm.State.AtRest() {
		m := s.adopt(vm, slot)
		if vm.Spec.AutoRemove && vm.State != banger.StateCreated {
			s.wg.Go(func() { m.do(m.ctx, func(context.Context) error { return m.remove() }) })
		}
		return
	}
	ctx, cancel := context.WithTimeout(ctx, adoptTimeout)
	defer cancel()
	st, err := s.shim(vm.ID).Status(ctx)
	alive := err == nil && !st.Ended && st.Shim.Alive()
	if err != nil {
		st = s.lastExit(vm.ID, err)
	}
	m := s.adopt(vm, slot)
	m.setMainSeen(true)
	resume := func() {
		m.do(m.ctx, func(ctx context.Context) error { return m.resume(ctx, vm.State, alive, st) })
	}
	if alive && vm.State == banger.StateStopping {
		s.wg.Go(resume) // takes its time
		return
	}
	resume()
}

// resume goes on, in the owner, from the state that the dead daemon stored.
func (m *machine) resume(ctx context.Context, state banger.State, alive bool, st shim.Status) error {
	if !alive {
		m.s.killProcesses(m.id())
		reason := st.Exit.Reason
		if m.snapshot().Reason != "" {
			reason = m.snapshot().Reason
		}
		m.onEnd(reason+", while no daemon ran", st.Exit.Panic)
		return nil
	}
	m.alive = true
	m.s.wg.Go(m.watch)
	switch state {
	case banger.StateRunning, banger.StatePaused:
		if m.snapshot().Main != nil {
			m.watchMain()
		}
		return nil
	case banger.StateStopping:
		return m.stop(ctx, defaultGrace, m.snapshot().Reason)
	}
	return m.kill(ctx, "the daemon died while it was starting")
}

// sweep removes processes and files of VMs that are not claimed.
func (s *Supervisor) sweep(claimed map[string]bool) error {
	err := s.eachShim(func(id string, pid int) {
		if !claimed[id] {
			killAndWait(pid)
		}
	})
	err = errors.Join(err, s.sweepGroups(claimed), s.sweepJails(claimed))
	for _, base := range []string{s.opts.StateDir, s.opts.RunDir} {
		entries, readErr := os.ReadDir(filepath.Join(base, "vms"))
		err = errors.Join(err, readErr)
		for _, e := range entries {
			if banger.ValidID(e.Name()) && !claimed[e.Name()] {
				err = errors.Join(err, untrusted.RemoveAll(filepath.Join(base, "vms", e.Name())))
			}
		}
	}
	return err
}

// sweepJails removes the jails of VMs that are not claimed.
func (s *Supervisor) sweepJails(claimed map[string]bool) (err error) {
	dirs, _ := filepath.Glob(filepath.Join(s.jailDir(), "*", "*"))
	for _, dir := range dirs {
		if id := filepath.Base(dir); banger.ValidID(id) && !claimed[id] {
			err = errors.Join(err, s.removeJail(id))
		}
	}
	return err
}

// killProcesses ends the shim of one VM, and with it the VMM, without its help.
func (s *Supervisor) killProcesses(id string) {
	s.eachShim(func(found string, pid int) {
		if found == id {
			killAndWait(pid)
		}
	})
}

// eachShim calls f for each process of ours whose command line is that of a shim
// of this state directory.
func (s *Supervisor) eachShim(f func(id string, pid int)) error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || !s.isOurs(e.Name()) {
			continue
		}
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			continue
		}
		args := strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00")
		if len(args) != len(s.opts.ShimArgv)+1 || strings.Join(args[1:len(args)-1], " ") != strings.Join(s.opts.ShimArgv[1:], " ") {
			continue
		}
		dir := args[len(args)-1]
		if id := filepath.Base(dir); filepath.Dir(dir) == filepath.Join(s.opts.StateDir, "vms") && banger.ValidID(id) {
			f(id, pid)
		}
	}
	return nil
}

// isOurs says whether a process belongs to a user whose shims we start. Others may call
// themselves what they like, and may keep us waiting for their command line. In a jail a shim
// begins as root.
func (s *Supervisor) isOurs(pid string) bool {
	var st syscall.Stat_t
	if syscall.Stat("/proc/"+pid, &st) != nil {
		return false
	}
	return st.Uid == 0 || int(st.Uid) == os.Geteuid() || s.opts.Root && st.Uid >= firstUID
}

// killAndWait ends a process that may not be our child and returns when it has
// ended; the kernel then has sent its VMM the parent-death signal.
func killAndWait(pid int) {
	h, err := vmm.HandleOf(pid)
	if err != nil {
		return
	}
	fd, err := pidfdOpen(pid)
	if err != nil {
		return
	}
	defer syscall.Close(fd)
	if !h.Alive() {
		return
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err == nil {
		awaitPidfd(fd, adoptTimeout)
	}
}
