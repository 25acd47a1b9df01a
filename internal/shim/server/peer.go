package server

import (
	"net"

	"golang.org/x/sys/unix"

	"banger/internal/private"
)

// mayCall says whether the process at the other end of conn may make control calls. A VMM that
// was taken over must not: the shim would lift the policy of its network.
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

// allowed says whether a process may call the shim of a daemon that runs as the user daemon.
// Where root is the daemon, the VMM is another user. Elsewhere it is the same, and its pid is
// refused; that it has no other process and calls nobody is the filter's doing (Confine).
func allowed(peer unix.Ucred, daemon uint32, vmm int) bool {
	return (peer.Uid == 0 || peer.Uid == daemon) && (vmm == 0 || int(peer.Pid) != vmm)
}
