package server

import (
	"net"

	"golang.org/x/sys/unix"

	"banger/internal/private"
)

// mayCall reports whether the process at the other end of conn may make control calls. A hostile VMM must not,
// because it could make the shim lift the policy of its network.
func (s *server) mayCall(conn *net.UnixConn) bool {
	cred, err := private.PeerOf(conn)
	if err != nil {
		return false
	}
	vmm := 0
	if s.proc != nil {
		vmm = s.proc.Handle().PID
	}
	return allowed(*cred, s.daemon, vmm)
}

// allowed reports whether a process may call the shim of a daemon that runs as the user daemon. If the daemon is
// root, the VMM has another user. Otherwise it has the same user, and its pid is refused. The filter (Confine) makes
// sure that it has no other process and cannot connect.
func allowed(peer unix.Ucred, daemon uint32, vmm int) bool {
	return (peer.Uid == 0 || peer.Uid == daemon) && (vmm == 0 || int(peer.Pid) != vmm)
}
