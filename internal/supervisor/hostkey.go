package supervisor

import (
	"banger/internal/reserve"
	"banger/internal/sshconf"
)

// hostKey returns the VM's SSH host key, which is made with the VM and lies among its
// files; a VM of an earlier banger gets one when it starts.
func (s *Supervisor) hostKey(id string) (private, public string, err error) {
	key, public, err := sshconf.MakeKey(s.dirs.HostKey(id), "banger VM "+id)
	return string(key), public, reserve.Explain(err, s.opts.StateDir)
}
