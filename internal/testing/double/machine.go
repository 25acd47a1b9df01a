package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The states of an instance (InstanceInfo.state).
const (
	notStarted = "Not started"
	running    = "Running"
	paused     = "Paused"
)

// microVM is the instance.
type microVM struct {
	id, state            string
	cpus, memory         int // memory in MiB
	kernel, initrd, args string
	drives               []drive
	nics                 []nic
	vsock                net.Listener
	entropy              bool
	balloon, reporting   bool
	trackDirty           bool
	pci                  bool
	resetSent            bool // the guest gets the event that ends its streams once it runs
	bootPath             bool // something other than a log was configured
	incoming             bool // QEMU waits for a snapshot
	hugePages            bool
	fatal                bool          // the process ends after the next answer
	loading              atomic.Bool   // a snapshot; if QEMU ends now, the load has failed
	gone                 chan struct{} // closed when QEMU has ended
	vsockPath            string        // the socket of the vsock device
	log, metrics         *os.File
	level                string   // log level until the API sets another
	ended                chan int // receives the exit code
	session              *session
	agent                *os.File // connection to the agent's port; it ends only after the next one exists

	mu  sync.Mutex // guards the monitor
	mon net.Conn
	in  *bufio.Scanner

	migration string          // latest status that QEMU reported
	answer    json.RawMessage // to the last command

	counted map[string]diskUse // by drive, at the time of the last metrics
}

type drive struct {
	ID       string `json:"drive_id"`
	Root     bool   `json:"is_root_device"`
	Path     string `json:"path_on_host"`
	ReadOnly bool   `json:"is_read_only"`
	serial   string
}

type nic struct {
	id, device string
	tap        *os.File
	mac        string
	mtu        int
}

// imageID returns the serial number that Firecracker gives a disk (block/virtio/device.rs,
// build_device_id), cut to virtio's 20 bytes.
func imageID(f *os.File) (string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", err
	}
	id := fmt.Sprintf("%d%d%d", st.Dev, st.Rdev, st.Ino)
	return id[:min(len(id), 20)], nil
}

// openTap opens a tap by name, with Firecracker's flags (net/tap.rs).
func openTap(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// start starts QEMU.
func (m *microVM) start() error {
	if m.kernel == "" {
		return faultf("Start microvm error: Cannot start microvm without kernel configuration.")
	}
	if m.cpus == 0 {
		m.cpus, m.memory = 1, 128
	}
	m.gone = make(chan struct{})
	started := make(chan error, 1)
	go m.run(started)
	if err := <-started; err != nil {
		return faultf("Start microvm error: %w", err)
	}
	if err := m.openMonitor(); err != nil {
		return faultf("Start microvm error: %w", err)
	}
	m.state = running
	if m.vsock != nil {
		m.session = &session{vm: m, changed: make(chan struct{})}
		go m.serveVsock(m.session, m.session.keep)
	}
	return nil
}

// run starts QEMU and waits for its end, on one locked thread: QEMU ends when that thread does.
func (m *microVM) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	monitor, files, err := m.open()
	if err != nil {
		started <- err
		return
	}
	cmd := exec.Command("qemu-system-x86_64", m.qemu()...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = files
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, PidFD: new(int)}
	err = cmd.Start()
	for _, f := range files[:len(files)-len(m.nics)] {
		f.Close() // the double keeps its own taps open
	}
	if err != nil {
		started <- err
		return
	}
	m.mon = monitor
	follower, err := startFollower(os.NewFile(uintptr(*cmd.SysProcAttr.PidFD), "pidfd"))
	if err != nil {
		cmd.Process.Kill()
	}
	started <- err
	code := exitOK
	if err := cmd.Wait(); err != nil {
		code = exitGeneric
		fmt.Fprintln(m.log, "[ERROR] the emulator of the double:", err)
	}
	if err != nil {
		return
	}
	follower.Process.Kill()
	follower.Wait()
	close(m.gone)
	if !m.loading.Load() {
		m.ended <- code
	}
}

// tuning returns kernel arguments that an emulated guest needs and a virtualised one does not.
func tuning() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	_, rest, _ := strings.Cut(string(info), "bogomips")
	_, rest, _ = strings.Cut(rest, ":")
	rest, _, _ = strings.Cut(rest, "\n")
	mips, _ := strconv.ParseFloat(strings.TrimSpace(rest), 64)
	return fmt.Sprintf(" tsc_early_khz=%d tsc=reliable no_timer_check cryptomgr.notests norandmaps", int(mips*500))
}

// appended returns what Firecracker itself appends to a command line (builder.rs).
func appended(pci bool) string {
	if pci || before(1, 13, 0) {
		return ""
	}
	return " pci=off"
}

// qemu returns the arguments for a machine like Firecracker's: the devices are virtio-mmio, and
// ACPI announces them in the order in which they were configured.
func (m *microVM) qemu() []string {
	a := []string{"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", "microvm,acpi=on,pit=on,pic=on,rtc=on,isa-serial=on", "-accel",
		"tcg,thread=single", "-global", "virtio-mmio.force-legacy=false", // docs/adr/0024 says why
		"-cpu", "EPYC-v1,-svm", "-smp", strconv.Itoa(m.cpus), "-m", fmt.Sprintf("%dM", m.memory),
		"-kernel", handed(fdKernel), "-append", m.args + appended(m.pci) + tuning(),
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-chardev", fmt.Sprintf("socket,id=qmp,fd=%d", fdMonitor), "-mon", "chardev=qmp,mode=control",
		"-chardev", "null,id=agent", // until dialAgent connects a socket
	}
	if m.initrd != "" {
		a = append(a, "-initrd", handed(fdInitrd))
	}
	if m.incoming {
		a = append(a, "-incoming", "defer")
	}
	slot := 23 // QEMU's ACPI tables list the slots from the last to the first
	device := func(format string, args ...any) {
		a = append(a, "-device", fmt.Sprintf(format, args...)+fmt.Sprintf(",bus=virtio-mmio-bus.%d", slot))
		slot--
	}
	for i, d := range m.drives {
		a = append(a, "-blockdev",
			fmt.Sprintf("driver=raw,node-name=drive%d,read-only=%s,file.driver=file,file.locking=off,file.filename=%s",
				i, map[bool]string{true: "on", false: "off"}[d.ReadOnly], handed(fdDrives+i)))
		// Firecracker does the same.
		device("virtio-blk-device,drive=drive%d,serial=%s,werror=report,rerror=report", i, d.serial)
	}
	for i, n := range m.nics {
		a = append(a, "-netdev", fmt.Sprintf("tap,id=net%d,fd=%d,vhost=off", i, fdDrives+len(m.drives)+i))
		mtu := ""
		if n.mtu > 0 {
			mtu = fmt.Sprintf(",host_mtu=%d", n.mtu)
		}
		device("virtio-net-device,netdev=net%d,mac=%s%s", i, n.mac, mtu)
	}
	device("virtio-serial-device")
	a = append(a, "-device", "virtserialport,chardev=agent,name=banger.agent")
	if m.entropy {
		device("virtio-rng-device")
	}
	if m.balloon {
		device("virtio-balloon-device,free-page-reporting=%t", m.reporting)
	}
	return a
}

// The emulator's descriptors. The double opens its files itself, as Firecracker does, and a
// confined emulator cannot connect to a socket.
const (
	fdMonitor = 3 + iota
	fdKernel
	fdInitrd
	fdDrives
)

// handed returns a path through which the emulator opens a descriptor again.
func handed(fd int) string { return fmt.Sprintf("/proc/self/fd/%d", fd) }

// open opens the files that the emulator receives, from descriptor 3 on, and returns our end of its
// monitor.
func (m *microVM) open() (monitor *net.UnixConn, files []*os.File, err error) {
	monitor, theirs, err := socketPair()
	if err != nil {
		return nil, nil, err
	}
	files = append(files, theirs)
	add := func(path string, flag int) {
		var f *os.File
		if path != "" && err == nil {
			f, err = os.OpenFile(path, flag, 0)
		}
		files = append(files, f) // nil leaves a gap
	}
	add(m.kernel, os.O_RDONLY)
	add(m.initrd, os.O_RDONLY)
	for _, d := range m.drives {
		add(d.Path, map[bool]int{true: os.O_RDONLY, false: os.O_RDWR}[d.ReadOnly])
	}
	for _, n := range m.nics {
		files = append(files, n.tap)
	}
	return monitor, files, err
}

// socketPair returns the two ends of a connection, the second one as a file.
func socketPair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ours := os.NewFile(uintptr(fds[0]), "ours")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, nil, err
	}
	return conn.(*net.UnixConn), os.NewFile(uintptr(fds[1]), "the emulator's"), nil
}

// dialAgent connects to the agent's serial port.
func (m *microVM) dialAgent() (net.Conn, error) {
	conn, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	address := map[string]any{"type": "fd", "data": map[string]any{"str": "agent"}}
	change := func(kind string, data map[string]any) error {
		return m.qmp("chardev-change", map[string]any{"id": "agent", "backend": map[string]any{"type": kind, "data": data}})
	}
	if err = change("null", map[string]any{}); err == nil {
		err = m.qmpWith("getfd", map[string]any{"fdname": "agent"}, theirs)
	}
	if err == nil {
		err = change("socket", map[string]any{"server": false, "addr": address})
	}
	var held *os.File
	if err == nil {
		held, err = conn.File()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	m.agent.Close() // does nothing if agent is nil
	m.agent = held
	return conn, nil
}

func (m *microVM) openMonitor() error {
	m.mon.SetDeadline(time.Now().Add(20 * time.Second))
	defer m.mon.SetDeadline(time.Time{})
	m.in = bufio.NewScanner(m.mon)
	m.in.Scan() // the greeting
	return m.qmp("qmp_capabilities", nil)
}

// qmp executes a command of QEMU's monitor.
func (m *microVM) qmp(command string, args any) error { return m.qmpWith(command, args, nil) }

// qmpWith executes a command and sends file with it.
func (m *microVM) qmpWith(command string, args any, file *os.File) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	call := map[string]any{"execute": command}
	if args != nil {
		call["arguments"] = args
	}
	line, err := json.Marshal(call)
	if err != nil {
		return err
	}
	var rights []byte
	if file != nil {
		rights = unix.UnixRights(int(file.Fd()))
	}
	if _, _, err := m.mon.(*net.UnixConn).WriteMsgUnix(append(line, '\n'), rights, nil); err != nil {
		return err
	}
	return m.read(func() bool { return false })
}

// read reads from the monitor until an answer comes, or until enough returns true after an event.
func (m *microVM) read(enough func() bool) error {
	for !enough() && m.in.Scan() {
		var reply struct {
			Event  string
			Data   struct{ Status string }
			Error  *struct{ Desc string }
			Return json.RawMessage
		}
		if err := json.Unmarshal(m.in.Bytes(), &reply); err != nil {
			return err
		}
		switch {
		case reply.Event == "MIGRATION":
			m.migration = reply.Data.Status
		case reply.Event != "":
		case reply.Error != nil:
			return faultf("Internal VMM error: %s", reply.Error.Desc)
		default:
			m.answer = reply.Return
			return nil
		}
	}
	if enough() {
		return nil
	}
	return errors.Join(errors.New("the emulator is gone"), m.in.Err())
}
