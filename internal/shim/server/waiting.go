package server

import (
	"encoding/json"
	"net"
	"os"
	"syscall"

	"banger"
	"banger/internal/shim"
)

// waiting is what a VM that was written down leaves for those who connect to it.
type waiting struct {
	listeners []banger.Listener
	files     []*os.File
}

func (w waiting) close() {
	for _, f := range w.files {
		f.Close()
	}
}

// answerSuspend answers a call with the sockets of a VM that was written down, if there are any, and its status.
func answerSuspend(conn *net.UnixConn, st shim.Status, files []*os.File) error {
	for len(files) > 0 {
		n := min(len(files), shim.MaxFiles)
		var fds []int
		for _, f := range files[:n] {
			fds = append(fds, int(f.Fd()))
		}
		if _, _, err := conn.WriteMsgUnix([]byte(" "), syscall.UnixRights(fds...), nil); err != nil {
			return err
		}
		files = files[n:]
	}
	return json.NewEncoder(conn).Encode(st)
}
