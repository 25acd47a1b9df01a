package boot

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"banger/internal/agent/console"
	"banger/internal/guest"
)

// prepareNetwork does what needs no address. The host's user network has no IPv6, so the NIC gets none either: an
// address that leads nowhere is worse than none.
func prepareNetwork() {
	if err := withNIC("lo", (*nic).up); err != nil {
		console.Warn(fmt.Errorf("bringing lo up: %w", err))
	}
	name, err := nicName()
	if err != nil { // the VM may have no network
		return
	}
	for file, value := range map[string]string{
		"ipv6/conf/" + name + "/disable_ipv6": "1",
		"ipv4/ping_group_range":               "0 2147483647", // every user may ping, as in containers
	} {
		if err := os.WriteFile("/proc/sys/net/"+file, []byte(value), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
			console.Warn(err)
		}
	}
}

// configureNIC gives the guest's one NIC its address and the default route.
func configureNIC(n guest.Network) error {
	name, err := nicName()
	if err != nil {
		return err
	}
	address, err := netip.ParsePrefix(n.Address)
	if err != nil || !address.Addr().Is4() {
		return fmt.Errorf("the network's address %q is not an IPv4 prefix", n.Address)
	}
	gateway, err := netip.ParseAddr(n.Gateway)
	if err != nil || !gateway.Is4() {
		return fmt.Errorf("the network's gateway %q is not an IPv4 address", n.Gateway)
	}
	return withNIC(name, func(d *nic) error { return d.configure(address, gateway, n.MTU) })
}

// nicName returns the name of the device that has hardware: not lo, nor one that
// software made.
func nicName() (string, error) {
	devices, err := filepath.Glob("/sys/class/net/*/device")
	if err != nil || len(devices) == 0 {
		return "", errors.New("the guest has no NIC, though the host gave it one: its kernel may lack virtio_net")
	}
	return filepath.Base(filepath.Dir(devices[0])), nil
}

// nic is a network device, and a socket for the calls of netdevice(7) on it. The image
// need not have any tool for them.
type nic struct {
	fd  int
	ifr *unix.Ifreq // names the device, and holds the last call's argument or result
}

// withNIC calls do with the device called name.
func withNIC(name string, do func(*nic) error) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	return do(&nic{fd, ifr})
}

func (n *nic) ioctl(request uint, argument unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(n.fd), uintptr(request), uintptr(argument)); errno != 0 {
		return errno
	}
	return nil
}

// call makes a call whose argument or result is in n.ifr.
func (n *nic) call(request uint) error { return n.ioctl(request, unsafe.Pointer(n.ifr)) }

// configure sets the MTU, if it is not 0, and the address, and brings the device up with
// a default route.
func (n *nic) configure(address netip.Prefix, gateway netip.Addr, mtu int) error {
	name := n.ifr.Name()
	if mtu > 0 {
		n.ifr.SetUint32(uint32(mtu))
		if err := n.call(unix.SIOCSIFMTU); err != nil {
			return fmt.Errorf("setting the MTU of %s to %d: %w", name, mtu, err)
		}
	}
	for _, set := range []struct {
		request uint
		value   netip.Addr
	}{{unix.SIOCSIFADDR, address.Addr()}, {unix.SIOCSIFNETMASK, mask(address.Bits())}} {
		if err := n.ifr.SetInet4Addr(set.value.AsSlice()); err != nil {
			return err
		}
		if err := n.call(set.request); err != nil {
			return fmt.Errorf("giving %s the address %s: %w", name, address, err)
		}
	}
	if err := n.up(); err != nil {
		return fmt.Errorf("bringing %s up: %w", name, err)
	}
	if err := n.addDefaultRoute(gateway); err != nil {
		return fmt.Errorf("adding the route by %s: %w", gateway, err)
	}
	return nil
}

// up brings the device up.
func (n *nic) up() error {
	if err := n.call(unix.SIOCGIFFLAGS); err != nil {
		return err
	}
	n.ifr.SetUint16(n.ifr.Uint16() | unix.IFF_UP)
	return n.call(unix.SIOCSIFFLAGS)
}

// down takes the device down, and its addresses and routes with it.
func (n *nic) down() error {
	if err := n.call(unix.SIOCGIFFLAGS); err != nil {
		return err
	}
	n.ifr.SetUint16(n.ifr.Uint16() &^ unix.IFF_UP)
	return n.call(unix.SIOCSIFFLAGS)
}

func mask(bits int) netip.Addr {
	m := ^uint32(0) << (32 - bits)
	return netip.AddrFrom4([4]byte{byte(m >> 24), byte(m >> 16), byte(m >> 8), byte(m)})
}

// rtentry is struct rtentry of linux/route.h, on machines of 64 bits.
type rtentry struct {
	_       uint64
	dst     unix.RawSockaddrInet4
	gateway unix.RawSockaddrInet4
	genmask unix.RawSockaddrInet4
	flags   uint16
	_       int16
	_       uint64
	_       uint64
	metric  int16
	dev     uintptr
	mtu     uint64
	window  uint64
	irtt    uint16
}

// addDefaultRoute adds the route by gateway, unless it is there already.
func (n *nic) addDefaultRoute(gateway netip.Addr) error {
	const up, viaGateway = 1, 2 // RTF_UP, RTF_GATEWAY
	rt := rtentry{flags: up | viaGateway}
	rt.dst.Family, rt.gateway.Family, rt.genmask.Family = unix.AF_INET, unix.AF_INET, unix.AF_INET
	rt.gateway.Addr = gateway.As4()
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(n.fd), unix.SIOCADDRT, uintptr(unsafe.Pointer(&rt)))
	if errno != 0 && errno != unix.EEXIST {
		return errno
	}
	return nil
}

// setMAC gives the guest's NIC another hardware address, and takes it down for that.
func setMAC(text string) error {
	mac, err := net.ParseMAC(text)
	if err != nil || len(mac) != 6 {
		return fmt.Errorf("%.40q is not an address of a NIC", text)
	}
	name, err := nicName()
	if err != nil {
		return err
	}
	return withNIC(name, func(n *nic) error {
		if err := n.down(); err != nil {
			return err
		}
		return n.setMAC(mac)
	})
}

// setMAC sets the hardware address of a device that is down.
func (n *nic) setMAC(mac net.HardwareAddr) error {
	var req struct { // struct ifreq with a struct sockaddr (netdevice(7))
		name   [unix.IFNAMSIZ]byte
		family uint16
		mac    [14]byte
		_      [8]byte
	}
	copy(req.name[:unix.IFNAMSIZ-1], n.ifr.Name())
	req.family = unix.ARPHRD_ETHER
	copy(req.mac[:], mac)
	return n.ioctl(unix.SIOCSIFHWADDR, unsafe.Pointer(&req))
}
