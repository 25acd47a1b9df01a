package sshd

import (
	"io"
	"os"

	"github.com/pkg/sftp"
)

// The agent runs itself to serve files as another user: it can execute what a link of
// /proc names though no path leads to it any more.
const (
	selfProgram  = "/proc/self/exe"
	sftpArgument = "sftp"
)

// IsSFTP reports whether the arguments of this process are those of one that serves
// files for the server. Then main calls ServeSFTP.
func IsSFTP(args []string) bool {
	return len(args) == 2 && args[0] == selfProgram && args[1] == sftpArgument
}

// ServeSFTP serves the file transfer protocol on stdin and stdout, as the user and from
// the directory of this process.
func ServeSFTP() error {
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
