package boot

import (
	"encoding/binary"
	"fmt"
	"os"
	"reflect"
	"unsafe"

	"golang.org/x/sys/unix"

	"banger/internal/agent/console"
	"banger/internal/agent/renew"
	"banger/internal/guest"
)

// Restore makes an independent VM of a guest that continues from a snapshot. Randomness comes
// first: everything random that follows then differs from other guests.
// Connections come last, when their resets find a network.
func (m *machine) Restore(before, c guest.Config) error {
	if err := reseed(c.Seed); err != nil {
		return err
	}
	if isSame(before, c) {
		setClock(c)
	} else if err := become(c, m.fork); err != nil {
		return err
	}
	if c.ResetConnections {
		if m.spaces == nil { // nothing was frozen before the snapshot
			m.spaces = namespaces()
		}
		if err := resetConnections(c.Network, m.spaces); err != nil {
			console.Warn(fmt.Errorf("old connections are not reset, and end when their programs give them up: %w", err))
		}
	}
	return nil
}

// isSame reports whether a guest of the configuration before is the VM of c already. Its files and its NIC then stay
// as they are, also where somebody in the guest has changed them.
func isSame(before, c guest.Config) bool {
	if c.MachineID != "" || c.Network != nil && c.Network.MAC != "" {
		return false
	}
	for _, one := range []*guest.Config{&before, &c} {
		one.TimeUnixNano, one.Seed, one.ResetConnections, one.Secrets, one.Dirs = 0, nil, false, nil, nil
	}
	return reflect.DeepEqual(before, c)
}

// fork makes new what a fork must not share with the VM that it comes from, besides what identify does. No process
// runs.
func (m *machine) fork(c guest.Config) error {
	if c.MachineID == "" {
		return nil
	}
	if m.ownInit {
		if err := renew.Files("/", upperDir(m.disk)); err != nil {
			console.Warn(err)
		}
	}
	if err := renew.BootID(); err != nil {
		console.Warn(err)
	}
	if !m.ownInit {
		return nil
	}
	if _, err := os.Stat(systemdSocket); err == nil {
		unix.Kill(1, unix.SIGTERM) // systemd starts again when it goes on, because it keeps ids in memory (systemd(1))
	}
	return renew.Tell()
}

// become gives the guest its new identity, and before that calls fork.
func become(c guest.Config, fork func(guest.Config) error) error {
	if err := fork(c); err != nil {
		return err
	}
	if err := identify(c, false); err != nil {
		return err
	}
	if !c.ReadOnly {
		return configure(c)
	}
	root := rootDir("/")
	if err := root.setReadOnly(false); err != nil {
		return fmt.Errorf("making the root writable for its new identity: %w", err)
	}
	if err := configure(c); err != nil {
		return err
	}
	return root.setReadOnly(true)
}

// The calls of random(4).
const (
	rndAddEntropy = 0x40085203 // RNDADDENTROPY
	rndReseedCRNG = 0x5207     // RNDRESEEDCRNG
)

// reseed mixes the host's randomness into the kernel's, which uses it at once. Until then
// two guests of one snapshot draw the same numbers.
func reseed(seed []byte) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("renewing the randomness: %w", err)
		}
	}()
	f, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info := make([]byte, 8+(len(seed)+3)/4*4) // struct rand_pool_info
	binary.NativeEndian.PutUint32(info, uint32(8*len(seed)))
	binary.NativeEndian.PutUint32(info[4:], uint32(len(seed)))
	copy(info[8:], seed)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), rndAddEntropy, uintptr(unsafe.Pointer(&info[0])))
	if errno != 0 {
		return errno
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), rndReseedCRNG, 0); errno != 0 {
		return errno
	}
	return nil
}

// renewMachineID writes machine-id(5) where the image has one. An init of the image's own, with ownInit, fills an
// empty file itself, because that tells it that this is the first boot.
func renewMachineID(id string, ownInit bool) error {
	for _, name := range []string{"etc/machine-id", "var/lib/dbus/machine-id"} {
		st, err := os.Lstat("/" + name)
		if err != nil || !st.Mode().IsRegular() || ownInit && st.Size() < int64(len(id)) {
			continue // it is a link to the other file, or absent
		}
		if err := rootDir("/").writeFile(name, id+"\n"); err != nil {
			return err
		}
	}
	return nil
}
