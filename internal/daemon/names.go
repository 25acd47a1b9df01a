package daemon

import (
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"banger/internal/dns"
)

// The names of VMs are served on a port that a daemon always has, so that the host's
// resolver can be told of it once. It is made from the state directory, whose daemon there
// is one of, and lies below those that the kernel gives to clients (ip(7),
// ip_local_port_range).
const (
	firstNamePort = 15353
	namePorts     = 10000
	nameTries     = 16         // neighbours of a port that is taken
	namePortFile  = "dns.port" // in the state directory: what was had when that was taken
)

// namePortsOf returns the ports to try, the best first; 0 is any.
func namePortsOf(stateDir string) []uint16 {
	var ports []uint16
	if text, err := os.ReadFile(filepath.Join(stateDir, namePortFile)); err == nil {
		if last, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 16); err == nil {
			ports = append(ports, uint16(last))
		}
	}
	own := crc32.ChecksumIEEE([]byte(stateDir))
	for i := range uint32(nameTries) {
		ports = append(ports, firstNamePort+uint16((own+i)%namePorts))
	}
	return append(ports, 0)
}

// namesOf is the server of a daemon's names, or why there is none.
type namesOf struct {
	server  *dns.Server
	problem error // or, with a server, why it is not where it was wanted
}

// serveNames listens on the first port that is free: the one that the last daemon
// had, the directory's own, one beside it, any.
func serveNames(stateDir string, dir dns.Directory) namesOf {
	var n namesOf
	for _, port := range namePortsOf(stateDir) {
		server, err := dns.Listen(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port), dir)
		if err == nil {
			n.server = server
			break
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			n.problem = err
			break
		}
		if n.problem == nil {
			n.problem = fmt.Errorf("port %d of 127.0.0.1, where it should be, is taken", port)
		}
	}
	if n.server != nil {
		writeNamePort(stateDir, n.server.Addr().Port())
	}
	return n
}

// writeNamePort is for the next daemon, which without it may get another port. The
// file is replaced: a copy of the directory may have it by a hard link.
func writeNamePort(stateDir string, port uint16) {
	path := filepath.Join(stateDir, namePortFile)
	if os.WriteFile(path+".tmp", []byte(strconv.Itoa(int(port))+"\n"), 0o600) != nil || os.Rename(path+".tmp", path) != nil {
		os.Remove(path + ".tmp")
	}
}

func (n namesOf) close() {
	if n.server != nil {
		n.server.Close()
	}
}

// version returns what GET /v1/version says of it.
func (n namesOf) version() (address, problem string) {
	if n.problem != nil {
		problem = n.problem.Error()
	}
	if n.server != nil {
		address = n.server.Addr().String()
	}
	return address, problem
}
