package agent

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
)

// restoreSystem makes a guest that goes on from a snapshot a VM of its own. Randomness
// comes first: what is made after it is nobody else's.
func restoreSystem(c guest.Config) error {
	if err := reseed(c.Seed); err != nil {
		return fmt.Errorf("renewing the randomness: %w", err)
	}
	if c.MachineID != "" {
		if err := renewMachineID(c.MachineID); err != nil {
			warn(fmt.Errorf("renewing the machine id: %w", err))
		}
	}
	if c.Network != nil && c.Network.MAC != "" {
		if err := setMAC(c.Network.MAC); err != nil {
			return fmt.Errorf("giving the NIC its address %s: %w", c.Network.MAC, err)
		}
	}
	return configureSystem(c)
}

// The calls of random(4).
const (
	rndAddEntropy = 0x40085203 // RNDADDENTROPY
	rndReseedCRNG = 0x5207     // RNDRESEEDCRNG
)

// reseed mixes the host's randomness into the kernel's and has it used at once: until then
// two guests of one snapshot draw the same numbers.
func reseed(seed []byte) error {
	f, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info := make([]byte, 8+(len(seed)+3)/4*4) // struct rand_pool_info
	binary.NativeEndian.PutUint32(info, uint32(8*len(seed)))
	binary.NativeEndian.PutUint32(info[4:], uint32(len(seed)))
	copy(info[8:], seed)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), rndAddEntropy, uintptr(unsafe.Pointer(&info[0]))); errno != 0 {
		return errno
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), rndReseedCRNG, 0); errno != 0 {
		return errno
	}
	return nil
}

// renewMachineID writes machine-id(5) where the image has one.
func renewMachineID(id string) error {
	for _, name := range []string{"etc/machine-id", "var/lib/dbus/machine-id"} {
		if st, err := os.Lstat("/" + name); err != nil || !st.Mode().IsRegular() {
			continue // a link to the other, or none
		}
		if err := rootDir("/").writeFile(name, id+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// setMAC gives the NIC another hardware address. It takes it down, and its addresses and
// routes with it.
func setMAC(text string) error {
	mac, err := net.ParseMAC(text)
	if err != nil || len(mac) != 6 {
		return fmt.Errorf("%.40q is no address of a NIC", text)
	}
	name, err := nicName()
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	ifr.SetUint16(0)
	if err := ioctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		return err
	}
	var req struct { // struct ifreq with a struct sockaddr (netdevice(7))
		name   [unix.IFNAMSIZ]byte
		family uint16
		mac    [14]byte
		_      [8]byte
	}
	copy(req.name[:unix.IFNAMSIZ-1], name)
	req.family = unix.ARPHRD_ETHER
	copy(req.mac[:], mac)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFHWADDR, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return errno
	}
	return nil
}
