package freezer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/agent/console"
)

// The groups that are there only while the guest is frozen.
const (
	agentGroup = "banger-agent" // for the agent, whose own group is frozen
	restGroup  = "banger-rest"  // for the other processes of the root group, which cannot be frozen
)

// The files of a group (cgroup-v2.rst).
const (
	procsFile  = "cgroup.procs"
	freezeFile = "cgroup.freeze"
	eventsFile = "cgroup.events"
)

// groups freezes the control groups below the root of a hierarchy. A group that is frozen already is left alone, and
// stays frozen.
type groups struct {
	root *os.Root
	self int                                     // the agent, which runs on
	home func(pid int) (group string, err error) // returns the path of a process's group below the root

	frozen []string // the groups that were frozen here
	left   string   // the group that the agent has left; "": it has left none
	moved  []int    // the processes that were taken out of the root group
}

// homeOf returns the path of a process's group below the root of the hierarchy of version 2. The root's is "".
func homeOf(pid int) (string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		if path, ok := strings.CutPrefix(line, "0::/"); ok {
			return strings.TrimSuffix(path, "\n"), nil
		}
	}
	return "", errors.New("the agent is in no control group of version 2")
}

// freeze stops all processes before the deadline.
func (g *groups) freeze(deadline time.Time) error {
	home, err := g.home(g.self)
	if err != nil {
		return fmt.Errorf("finding the agent's control group: %w", banger.Cause(err))
	}
	if home != "" {
		if err := g.stepOut(home); err != nil {
			return fmt.Errorf("moving the agent out of the control group /%s: %w", home, banger.Cause(err))
		}
	} else if err := g.makeRest(); err != nil {
		return fmt.Errorf("making a control group for the processes of the root: %w", banger.Cause(err))
	}
	seen := map[string]bool{agentGroup: true, restGroup: true}
	for { // until nothing has appeared that was made by what still ran
		found, err := g.freezeNew(seen)
		if err != nil {
			return err
		}
		if home == "" {
			more, err := g.gatherRest()
			if err != nil {
				return err
			}
			found = found || more
		}
		if !found {
			return nil
		}
		if err := g.await(deadline); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return banger.Errorf(banger.CodeTimeout, "new processes keep appearing")
		}
	}
}

// stepOut moves the agent to a group of its own.
func (g *groups) stepOut(home string) error {
	if err := g.root.Mkdir(agentGroup, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := g.write(agentGroup+"/"+freezeFile, "0"); err != nil {
		return err
	}
	if err := g.move(g.self, agentGroup); err != nil {
		return err
	}
	g.left = home
	return nil
}

// makeRest makes the group for the processes of the root. It is frozen before the first one comes.
func (g *groups) makeRest() error {
	if err := g.root.Mkdir(restGroup, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	g.frozen = append(g.frozen, restGroup)
	return g.write(restGroup+"/"+freezeFile, "1")
}

// gatherRest moves all processes of the root but the agent to the group of the rest, and reports whether there was one.
func (g *groups) gatherRest() (found bool, err error) {
	data, err := g.root.ReadFile(procsFile)
	if err != nil {
		return false, fmt.Errorf("looking for the processes of the root group: %w", banger.Cause(err))
	}
	for field := range strings.FieldsSeq(string(data)) {
		pid, err := strconv.Atoi(field)
		if err != nil || pid == g.self {
			continue
		}
		if p, ok := look(pid); !ok || p.ofKernel() {
			continue
		}
		if err := g.move(pid, restGroup); errors.Is(err, unix.ESRCH) {
			continue
		} else if err != nil {
			return false, fmt.Errorf("moving the process %d out of the root group: %w", pid, banger.Cause(err))
		}
		g.moved, found = append(g.moved, pid), true
	}
	return found, nil
}

// freezeNew freezes the groups below the root that it has not seen before, and reports whether there was one.
func (g *groups) freezeNew(seen map[string]bool) (found bool, err error) {
	entries, err := fs.ReadDir(g.root.FS(), ".")
	if err != nil {
		return false, fmt.Errorf("listing the control groups: %w", banger.Cause(err))
	}
	for _, e := range entries {
		if name := e.Name(); e.IsDir() && !seen[name] {
			seen[name], found = true, true
			if err := g.freezeOne(name); err != nil && !isGone(err) {
				return false, fmt.Errorf("freezing the control group /%s: %w", name, banger.Cause(err))
			}
		}
	}
	return found, nil
}

// freezeOne begins to freeze a group, unless somebody has frozen it before.
func (g *groups) freezeOne(name string) error {
	state, err := g.root.ReadFile(name + "/" + freezeFile)
	if err != nil || strings.TrimSpace(string(state)) == "1" {
		return err
	}
	g.frozen = append(g.frozen, name)
	return g.write(name+"/"+freezeFile, "1")
}

// await returns when all groups are frozen.
func (g *groups) await(deadline time.Time) error {
	for _, name := range g.frozen {
		if err := g.awaitOne(name, deadline); err != nil && !isGone(err) {
			return fmt.Errorf("waiting for the control group /%s: %w", name, banger.Cause(err))
		}
	}
	return nil
}

// awaitOne returns when the processes of a group have stopped. The kernel tells each change of the group's events to
// poll(2).
func (g *groups) awaitOne(name string, deadline time.Time) error {
	events, err := g.root.Open(name + "/" + eventsFile)
	if err != nil {
		return err
	}
	defer events.Close()
	buf := make([]byte, 256)
	for {
		n, err := unix.Pread(int(events.Fd()), buf, 0)
		if err != nil {
			return err
		}
		if strings.Contains(string(buf[:n]), "frozen 1") {
			return nil
		}
		left := time.Until(deadline)
		if left <= 0 {
			return banger.Errorf(banger.CodeTimeout, "its processes do not stop")
		}
		poll := []unix.PollFd{{Fd: int32(events.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(poll, int(left.Milliseconds())+1); err != nil && err != unix.EINTR {
			return err
		}
	}
}

// thaw lets the processes go on, and puts each back into the group in which it was.
func (g *groups) thaw() {
	for _, name := range slices.Backward(g.frozen) {
		if err := g.write(name+"/"+freezeFile, "0"); err != nil && !isGone(err) {
			console.Warn(fmt.Errorf("thawing the control group /%s: %w", name, banger.Cause(err)))
		}
	}
	for _, pid := range g.moved {
		g.move(pid, ".") // it may have ended
	}
	if g.left != "" {
		if err := g.move(g.self, g.left); err != nil {
			console.Warn(fmt.Errorf("moving the agent back to its control group: %w", banger.Cause(err)))
		}
	}
	for _, name := range []string{agentGroup, restGroup} {
		g.root.Remove(name) // it stays while somebody is in it
	}
	g.frozen, g.moved, g.left = nil, nil, ""
}

func (g *groups) move(pid int, group string) error {
	return g.write(group+"/"+procsFile, strconv.Itoa(pid))
}

func (g *groups) write(name, value string) error {
	f, err := g.root.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(value)
	return err
}

// isGone reports whether an error means that a group was removed.
func isGone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) }
