package supervisor

import (
	"banger/internal/reserve"
	"banger/internal/sshconf"
)

// hostKey returns the VM's SSH host key. The key is made with the VM and kept among its files. A VM of an earlier
// banger gets one at its next start.
func (s *Supervisor) hostKey(id string) (private, public string, err error) {
	key, public, err := sshconf.MakeKey(s.dirs.HostKey(id), "banger VM "+id)
	return string(key), public, reserve.Explain(err, s.opts.StateDir)
}
