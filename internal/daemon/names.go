package daemon

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"banger/internal/dns"
)

// The names of VMs are served on a port that a user's daemon always has, so that the
// host's resolver can be told of it once: 15353 for root, and one of the next 10,000 for
// others.
const (
	firstNamePort = 15353
	namePorts     = 10000
	namePortFile  = "dns.port" // in the state directory: what was had when that was taken
)

// namesOf is the server of a daemon's names, or why there is none.
type namesOf struct {
	server  *dns.Server
	problem error // or, with a server, why it is not where it was wanted
}

// serveNames listens on the first port that is free: the one that the last daemon
// had, the user's own, any.
func serveNames(stateDir string, dir dns.Directory) namesOf {
	file := filepath.Join(stateDir, namePortFile)
	ports := []uint16{uint16(firstNamePort + os.Getuid()%namePorts), 0}
	if text, err := os.ReadFile(file); err == nil {
		if last, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 16); err == nil {
			ports = append([]uint16{uint16(last)}, ports...)
		}
	}
	var n namesOf
	for _, port := range ports {
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
		os.WriteFile(file, []byte(strconv.Itoa(int(n.server.Addr().Port()))+"\n"), 0o600) // without it the next daemon may get another
	}
	return n
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
