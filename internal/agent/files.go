package agent

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/agent/stream"
	"banger/internal/archive"
	"banger/internal/frame"
	"banger/internal/guest"
)

// files answers a request for files of the guest. It follows paths as any program of
// the guest does.
func (s *server) files(conn net.Conn, frames *frame.Reader, req guest.Request) {
	if req.File == nil {
		sendError(conn, banger.Errorf(banger.CodeInvalid, "no path is given"))
		return
	}
	r := *req.File
	r.Op = req.Op
	if err := r.Check(); err != nil {
		sendError(conn, err)
		return
	}
	k, err := s.enter()
	if err != nil {
		sendError(conn, err)
		return
	}
	defer k.leave()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	k.whenCut(func() { // the copy then fails
		cancel()
		conn.SetReadDeadline(time.Unix(1, 0))
		conn.SetWriteDeadline(time.Now().Add(tellTime))
	})
	if c, ok := conn.(interface{ Done() <-chan struct{} }); ok {
		go func() { // ends with the stream, which its handler closes
			<-c.Done()
			cancel()
		}()
	}
	kind, answer := frame.Response, any(nil)
	switch r.Op {
	case guest.OpFileStat:
		answer, err = statFile(string(r.Path), r.Follow)
	case guest.OpArchive:
		kind = frame.Exit
		answer, err = archive.Write(ctx, cuttable{conn, k}, string(r.Path), archive.WriteOptions{
			Name: string(r.Name), Follow: r.Follow, NoXattrs: r.NoXattrs, Frame: frame.Stdout})
	case guest.OpExtract:
		defer stream.Release(conn)
		in := archive.NewFrames(frame.NewReader(conn), frame.Stdin, frame.StdinEOF)
		answer, err = archive.Extract(ctx, in, string(r.Path), archive.ExtractOptions{
			Into: r.Into, Owners: r.Owners, NoXattrs: r.NoXattrs, Special: true, Direct: true, Foreign: r.Into,
			Rights: true, Unbounded: true})
	}
	if err != nil && k.isCut() {
		err = cutOff()
	}
	if err != nil {
		sendError(conn, err)
		return
	}
	frame.WriteJSON(conn, kind, answer)
}

func statFile(path string, follow bool) (banger.FileInfo, error) {
	var st unix.Stat_t
	stat := unix.Lstat
	if follow {
		stat = unix.Stat
	}
	err := stat(path, &st)
	info := banger.FileInfo{Mode: st.Mode, Size: st.Size, UID: st.Uid, GID: st.Gid, ModTime: st.Mtim.Nano()}
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
		var target string
		target, err = os.Readlink(path)
		info.Target = []byte(target)
	}
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return info, banger.Errorf(banger.CodeNotFound, "there is no file %q", path)
	case err != nil:
		return info, banger.Errorf(banger.CodeDenied, "looking at %q: %w", path, err)
	}
	return info, nil
}
