package supervisor

import (
	"context"
	"net"
	"path/filepath"

	"banger"
	"banger/internal/sshconf"
)

// SSH opens a stream to the SSH server of a running VM's agent, for the keys of r.
// The caller owns it.
func (s *Supervisor) SSH(ctx context.Context, ref string, r banger.SSH) (net.Conn, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	m, def, err := s.running(ref, "connect to")
	if err != nil {
		return nil, err
	}
	r.Env = mergeEnv(def.Env, r.Env)
	return m.agent().SSH(ctx, r)
}

// hostKeyFile is the name of the VM's SSH host key in its directory.
const hostKeyFile = "ssh_host_ed25519_key"

// hostKey returns the VM's SSH host key, which is made with the VM and lies among its
// files; a VM of an earlier banger gets one when it starts.
func (s *Supervisor) hostKey(id string) (private, public string, err error) {
	key, public, err := sshconf.MakeKey(filepath.Join(s.stateDir(id), hostKeyFile), "banger VM "+id)
	return string(key), public, noSpace(err, s.opts.StateDir)
}
