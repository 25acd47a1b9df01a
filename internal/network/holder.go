package network

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// holder returns, for people, which program has a port of the host. If we may not see the program,
// it returns the user (proc_net(5)).
func holder(protocol string, at netip.AddrPort) string {
	data, err := os.ReadFile("/proc/thread-self/net/" + protocol)
	if err != nil {
		return "another program"
	}
	for _, line := range strings.Split(string(data), "\n") {
		f := strings.Fields(line)
		if len(f) < 10 || protocol == "tcp" && f[3] != "0A" {
			continue
		}
		local, ok := procAddress(f[1])
		if !ok || local.Port() != at.Port() || local.Addr() != at.Addr() &&
			!local.Addr().IsUnspecified() && !at.Addr().IsUnspecified() {
			continue
		}
		if who := programOf(f[9]); who != "" {
			return who
		}
		return "a program of user " + f[7]
	}
	return "another program"
}

// procAddress reads the kernel's form of an IPv4 address and port: the address in
// the machine's byte order, both in hexadecimal.
func procAddress(s string) (netip.AddrPort, bool) {
	host, port, ok := strings.Cut(s, ":")
	a, err := hex.DecodeString(host)
	p, perr := hex.DecodeString(port)
	if !ok || err != nil || perr != nil || len(a) != 4 || len(p) != 2 {
		return netip.AddrPort{}, false
	}
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], binary.BigEndian.Uint32(a))
	return netip.AddrPortFrom(netip.AddrFrom4(b), binary.BigEndian.Uint16(p)), true
}

// programOf returns the program that holds the socket of that inode, or "".
func programOf(inode string) string {
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, l := range links {
		if target, err := os.Readlink(l); err != nil || target != "socket:["+inode+"]" {
			continue
		}
		pid := strings.Split(l, "/")[2]
		name, err := os.ReadFile("/proc/" + pid + "/comm")
		if err != nil {
			continue
		}
		return fmt.Sprintf("%q (pid %s)", strings.TrimSpace(string(name)), pid)
	}
	return ""
}
