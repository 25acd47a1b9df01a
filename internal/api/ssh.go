package api

import (
	"context"
	"net"
	"net/http"

	"banger"
)

// upgradeSSH is the value of Upgrade on connections to a VM's SSH server. The SSH protocol follows.
const upgradeSSH = "banger-ssh"

func (s *Server) ssh(w http.ResponseWriter, req *http.Request) error {
	var r banger.SSH
	if err := decode(req, &r); err != nil {
		return err
	}
	if req.Header.Get("Upgrade") != upgradeSSH {
		return banger.Errorf(banger.CodeInvalid, "a connection needs the header Upgrade: %s", upgradeSSH)
	}
	stream, err := s.Guests.SSH(req.Context(), req.PathValue("vm"), r)
	if err != nil {
		return err
	}
	return s.handOver(w, req, upgradeSSH, stream)
}

// SSH connects to the SSH server of a VM. The caller owns the connection.
func (c *Client) SSH(ctx context.Context, ref string, r banger.SSH) (net.Conn, error) {
	return c.upgrade(ctx, vmPath(ref, "ssh"), nil, r, upgradeSSH)
}
