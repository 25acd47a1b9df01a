package supervisor

import (
	"context"
	"net"

	"banger"
)

// Files opens the stream of a copy from or to a running VM: frames of a tar and
// the agent's report, as internal/guest says of OpArchive and OpExtract. The caller
// owns the stream and copies its frames.
func (s *Supervisor) Files(ctx context.Context, ref string, r banger.FileRequest) (net.Conn, error) {
	m, err := s.forFiles(ref, &r)
	if err != nil {
		return nil, err
	}
	return m.offering().Files(ctx, r)
}

// StatFile says what is at a path of a running VM.
func (s *Supervisor) StatFile(ctx context.Context, ref string, r banger.FileRequest) (banger.FileInfo, error) {
	m, err := s.forFiles(ref, &r)
	if err != nil {
		return banger.FileInfo{}, err
	}
	return m.agent().StatFile(ctx, r)
}

// forFiles finds a running VM and gives r the directory where its commands start.
func (s *Supervisor) forFiles(ref string, r *banger.FileRequest) (*machine, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	m, def, err := s.running(ref, "copy files of")
	if err != nil {
		return nil, err
	}
	r.Resolve(def.Dir)
	return m, nil
}
