package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
)

// duties are what differs between an agent that is PID 1, one beside the image's
// init, and one that runs on the host in a test.
type duties interface {
	configure(guest.Config) error
	// restored is called when the guest goes on from a snapshot.
	restored(guest.Config) error
	// ready returns nil when the guest's init obeys commands, and an error when ctx ends before.
	ready(context.Context) error
	// correct changes the clock.
	correct(guest.Correction) error
	// shutdown is called once the main command was signalled; it does not return
	// in a real guest.
	shutdown(grace time.Duration, main *process, how ending)
	// disk returns a descriptor of the VM's own disk, or -1.
	disk() int
}

// initDuties are those of PID 1.
type initDuties struct{ own int }

func (d initDuties) disk() int { return d.own }

func (initDuties) configure(c guest.Config) error { return configureSystem(c) }

func (initDuties) restored(c guest.Config) error { return restoreSystem(c) }

func (initDuties) ready(context.Context) error { return nil }

func (initDuties) correct(c guest.Correction) error { return correctClock(c) }

// shutdown ends all programs, makes the disks clean and ends the guest.
func (d initDuties) shutdown(grace time.Duration, main *process, how ending) {
	unix.Kill(-1, unix.SIGTERM)
	awaitNoProcesses(grace)
	unix.Kill(-1, unix.SIGKILL)
	awaitNoProcesses(2 * time.Second)
	unix.Sync()
	unix.Unmount("/var/lib/docker", unix.MNT_DETACH)
	unix.Unmount("/var/lib/containerd", unix.MNT_DETACH)
	if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		warn(fmt.Errorf("making / read-only: %w", err))
	}
	if err := unix.Mount("", procPath(d.own), "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		warn(fmt.Errorf("making the disk clean: %w", err))
	}
	how.now()
}

// awaitNoProcesses returns when only this process and kernel threads are left,
// or the limit has passed.
func awaitNoProcesses(limit time.Duration) {
	deadline := time.Now().Add(limit)
	for time.Now().Before(deadline) && otherProcesses() {
		time.Sleep(10 * time.Millisecond) // the reaper takes the ends; there is no event for "none left"
	}
}

func otherProcesses() bool {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return false
	}
	for _, e := range entries {
		if c := e.Name()[0]; c < '0' || c > '9' || e.Name() == "1" {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue
		}
		// Kernel threads descend from kthreadd, pid 2 (proc(5): pid (comm) state ppid).
		_, rest, ok := strings.Cut(string(stat), ") ")
		fields := strings.Fields(rest)
		if ok && len(fields) > 1 && e.Name() != "2" && fields[1] != "2" && fields[0] != "Z" {
			return true
		}
	}
	return false
}

// powerOff ends the VM.
func powerOff() { hostEnds.now() }

func endsByRestart() bool { return kernelArgument(guest.RestartArgument) }

// residentDuties are those beside an init of the image.
type residentDuties struct {
	own        int      // the disk
	configured *os.File // to PID 1, closed when told
	once       sync.Once
}

func (d *residentDuties) disk() int { return d.own }

func (d *residentDuties) configure(c guest.Config) error {
	err := configureSystem(c)
	d.once.Do(func() {
		d.configured.Write([]byte{1})
		d.configured.Close()
	})
	return err
}

func (d *residentDuties) restored(c guest.Config) error { return restoreSystem(c) }

func (d *residentDuties) ready(ctx context.Context) error {
	return awaitInit(ctx, "/proc", systemdSocket)
}

func (d *residentDuties) correct(c guest.Correction) error { return correctClock(c) }

// initPowerOff and initRestart are systemd's signals for an orderly end (systemd(1),
// SIGRTMIN+4 and SIGRTMIN+5).
const (
	initPowerOff = syscall.Signal(34 + 4)
	initRestart  = syscall.Signal(34 + 5)
)

// shutdown lets the image's init stop its services. Should it hang, the host's
// own limit ends the VM; before that we make the disks as clean as can be.
func (d *residentDuties) shutdown(grace time.Duration, _ *process, how ending) {
	end := initPowerOff
	if endsByRestart() {
		end = initRestart
	}
	unix.Kill(1, end)
	time.Sleep(grace) // the power-off ends us; this is the limit, not a wait
	unix.Sync()
	os.WriteFile("/proc/sysrq-trigger", []byte("u"), 0) // remount everything read-only (sysrq.rst)
	how.now()
}

// hostDuties are those of a test: none.
type hostDuties struct{}

func (hostDuties) disk() int { return -1 }

func (hostDuties) configure(guest.Config) error { return nil }

func (hostDuties) restored(guest.Config) error { return nil }

// ready waits in vain: no init belongs to a test.
func (hostDuties) ready(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func (hostDuties) correct(guest.Correction) error { return nil }

func (hostDuties) shutdown(grace time.Duration, main *process, how ending) {
	if main != nil {
		select {
		case <-main.done:
		case <-time.After(grace):
			main.signal(syscall.SIGKILL)
		}
	}
	if how == guestReboots {
		os.Exit(RebootCode)
	}
	os.Exit(0)
}

// becomeImageInit starts the resident agent, waits until the host has configured
// the guest, and turns PID 1 into the image's init.
func becomeImageInit(disk int) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	self := "/proc/self/exe"
	_, err = os.StartProcess(self, []string{residentName}, &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr, w, os.NewFile(uintptr(disk), "disk")}, Env: []string{"PATH=" + defaultPath}, Sys: &syscall.SysProcAttr{Setsid: true}})
	if err != nil {
		return fmt.Errorf("starting the resident agent: %w", err)
	}
	w.Close()
	if n, _ := r.Read(make([]byte, 1)); n != 1 {
		return errors.New("the resident agent ended before the guest was configured")
	}
	r.Close()
	for _, init := range []string{"/sbin/init", "/usr/sbin/init", "/usr/lib/systemd/systemd", "/lib/systemd/systemd"} {
		err = syscall.Exec(init, []string{init}, []string{"PATH=" + defaultPath, "TERM=linux", "container="})
		if !errors.Is(err, unix.ENOENT) {
			break
		}
	}
	return fmt.Errorf("the image's init cannot be run: %w", err)
}

// resolvConf is what the C library reads (resolv.conf(5)).
func resolvConf(n guest.Network) string {
	var text strings.Builder
	for _, dns := range n.DNS {
		text.WriteString("nameserver " + dns + "\n")
	}
	if len(n.Search) > 0 {
		text.WriteString("search " + strings.Join(n.Search, " ") + "\n")
	}
	return text.String()
}

// configureSystem sets host name, clock and the network files.
func configureSystem(c guest.Config) error {
	if c.TimeUnixNano > 0 {
		ts := unix.NsecToTimespec(c.TimeUnixNano)
		if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
			warn(fmt.Errorf("setting the clock: %w", err))
		}
	}
	if err := unix.Sethostname([]byte(c.Hostname)); err != nil {
		return fmt.Errorf("setting the host name: %w", err)
	}
	root := rootDir("/")
	short, _, _ := strings.Cut(c.Hostname, ".")
	names := c.Hostname
	if short != names {
		names += " " + short
	}
	hosts := "127.0.0.1\tlocalhost\n127.0.1.1\t" + names + "\n::1\tlocalhost ip6-localhost ip6-loopback\n"
	files := map[string]string{"etc/hostname": c.Hostname + "\n", "etc/hosts": hosts}
	if c.Network != nil {
		files["etc/resolv.conf"] = resolvConf(*c.Network)
	}
	for name, content := range files {
		if err := root.writeFile(name, content); err != nil {
			warn(fmt.Errorf("writing /%s: %w", name, err))
		}
	}
	if err := root.trust(c.CA); err != nil {
		warn(fmt.Errorf("adding certificates to trust: %w", err))
	}
	if err := linkUp("lo"); err != nil {
		warn(fmt.Errorf("bringing lo up: %w", err))
	}
	if c.Nested {
		if err := prepareNested(); err != nil {
			return err
		}
	}
	if c.Network != nil {
		return configureNIC(*c.Network)
	}
	return nil
}
