package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"banger/internal/guest"
)

// configureNIC gives the guest's one NIC its address and the default route, with
// the calls of netdevice(7), since the image need not have any tool. The host's
// user network has no IPv6, so the NIC gets none either: an address that leads
// nowhere is worse than none.
func configureNIC(n guest.Network) error {
	name, err := nicName()
	if err != nil {
		return err
	}
	address, err := netip.ParsePrefix(n.Address)
	if err != nil || !address.Addr().Is4() {
		return fmt.Errorf("the network's address %q is no IPv4 prefix", n.Address)
	}
	gateway, err := netip.ParseAddr(n.Gateway)
	if err != nil || !gateway.Is4() {
		return fmt.Errorf("the network's gateway %q is no IPv4 address", n.Gateway)
	}
	for file, value := range map[string]string{
		"ipv6/conf/" + name + "/disable_ipv6": "1",
		"ipv4/ping_group_range":               "0 2147483647", // anybody may ping, as in containers
	} {
		if err := os.WriteFile("/proc/sys/net/"+file, []byte(value), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
			warn(err)
		}
	}
	return setAddress(name, address, gateway, n.MTU)
}

// nicName returns the device that is neither lo nor one that only software made.
func nicName() (string, error) {
	devices, err := filepath.Glob("/sys/class/net/*/device")
	if err != nil || len(devices) == 0 {
		return "", errors.New("the guest has no NIC, though the host gave it one: its kernel may lack virtio_net")
	}
	return filepath.Base(filepath.Dir(devices[0])), nil
}

func setAddress(name string, address netip.Prefix, gateway netip.Addr, mtu int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if mtu > 0 {
		ifr.SetUint32(uint32(mtu))
		if err := ioctlIfreq(fd, unix.SIOCSIFMTU, ifr); err != nil {
			return fmt.Errorf("setting the MTU of %s to %d: %w", name, mtu, err)
		}
	}
	for _, set := range []struct {
		request uint
		value   netip.Addr
	}{{unix.SIOCSIFADDR, address.Addr()}, {unix.SIOCSIFNETMASK, mask(address.Bits())}} {
		if err := ifr.SetInet4Addr(set.value.AsSlice()); err != nil {
			return err
		}
		if err := ioctlIfreq(fd, set.request, ifr); err != nil {
			return fmt.Errorf("giving %s the address %s: %w", name, address, err)
		}
	}
	if err := linkUp(name); err != nil {
		return fmt.Errorf("bringing %s up: %w", name, err)
	}
	if err := addDefaultRoute(fd, gateway); err != nil {
		return fmt.Errorf("adding the route by %s: %w", gateway, err)
	}
	return nil
}

func mask(bits int) netip.Addr {
	m := ^uint32(0) << (32 - bits)
	return netip.AddrFrom4([4]byte{byte(m >> 24), byte(m >> 16), byte(m >> 8), byte(m)})
}

// rtentry is the kernel's, on machines of 64 bits (linux/route.h).
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

func addDefaultRoute(fd int, gateway netip.Addr) error {
	const up, viaGateway = 1, 2 // RTF_UP, RTF_GATEWAY
	rt := rtentry{flags: up | viaGateway}
	rt.dst.Family, rt.gateway.Family, rt.genmask.Family = unix.AF_INET, unix.AF_INET, unix.AF_INET
	rt.gateway.Addr = gateway.As4()
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCADDRT, uintptr(unsafe.Pointer(&rt)))
	if errno != 0 && errno != unix.EEXIST {
		return errno
	}
	return nil
}

// linkUp sets IFF_UP (netdevice(7)).
func linkUp(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := ioctlIfreq(fd, unix.SIOCGIFFLAGS, ifr); err != nil {
		return err
	}
	ifr.SetUint16(ifr.Uint16() | unix.IFF_UP)
	return ioctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

func ioctlIfreq(fd int, req uint, ifr *unix.Ifreq) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(req), uintptr(unsafe.Pointer(ifr)))
	if errno != 0 {
		return errno
	}
	return nil
}
