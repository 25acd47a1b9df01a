package supervisor

import (
	"path/filepath"

	"banger/internal/reserve"
	"banger/internal/sshconf"
)

// hostKeyFile is the name of the VM's SSH host key in its directory.
const hostKeyFile = "ssh_host_ed25519_key"

// hostKey returns the VM's SSH host key, which is made with the VM and lies among its
// files; a VM of an earlier banger gets one when it starts.
func (s *Supervisor) hostKey(id string) (private, public string, err error) {
	key, public, err := sshconf.MakeKey(filepath.Join(s.stateDir(id), hostKeyFile), "banger VM "+id)
	return string(key), public, reserve.Explain(err, s.opts.StateDir)
}
