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

// A daemon serves the names of VMs on a port that stays the same, because the host's resolver is configured once. The
// port is derived from the state directory, which has one daemon. It lies below the ports that the kernel gives to
// clients (ip(7), ip_local_port_range).
const (
	firstNamePort = 15353
	namePorts     = 10000
	nameTries     = 16         // number of neighbouring ports to try if a port is taken
	namePortFile  = "dns.port" // file in the state directory with the port that was used last
)

// namePortsOf returns the ports to try, the best first. 0 means any port.
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

// nameServers is the server of a daemon's names, or the reason why there is none.
type nameServers struct {
	server  *dns.Server
	problem error // if server is not nil: why it does not have the intended port
}

// serveNames listens on the first free port of these: the port of the last daemon, the port derived from the
// directory, a neighbour of that port, any port.
func serveNames(stateDir string, dir dns.Directory) nameServers {
	var n nameServers
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

// writeNamePort stores the port for the next daemon, which could otherwise get another port. It replaces the file
// instead of changing it, because a copy of the directory may share the file by a hard link.
func writeNamePort(stateDir string, port uint16) {
	path := filepath.Join(stateDir, namePortFile)
	if os.WriteFile(path+".tmp", []byte(strconv.Itoa(int(port))+"\n"), 0o600) != nil ||
		os.Rename(path+".tmp", path) != nil {
		os.Remove(path + ".tmp")
	}
}

func (n nameServers) close() {
	if n.server != nil {
		n.server.Close()
	}
}

// version returns the address and the problem for GET /v1/version.
func (n nameServers) version() (address, problem string) {
	if n.problem != nil {
		problem = n.problem.Error()
	}
	if n.server != nil {
		address = n.server.Addr().String()
	}
	return address, problem
}
