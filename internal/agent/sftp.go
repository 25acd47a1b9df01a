package agent

import (
	"io"
	"os"

	"github.com/pkg/sftp"
)

// The agent runs itself to serve files as another user: what a link of /proc names
// can be executed though no path leads to it any more.
const (
	selfProgram  = "/proc/self/exe"
	sftpArgument = "sftp"
)

// serveSFTP serves the file transfer protocol on stdio, as whoever we are, from the
// directory where we are.
func serveSFTP() error {
	dir, err := os.Getwd()
	if err != nil {
		dir = "/"
	}
	s, err := sftp.NewServer(struct {
		io.Reader
		io.WriteCloser
	}{os.Stdin, os.Stdout}, sftp.WithServerWorkingDirectory(dir))
	if err != nil {
		return err
	}
	return s.Serve()
}
