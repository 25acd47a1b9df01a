package agent

import (
	"context"
	"io"
	"net"
	"time"

	"banger"
	"banger/internal/agent/listing"
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
	s.copying(conn, func(ctx context.Context, w io.Writer) (kind frame.Type, answer any, err error) {
		kind = frame.Response
		switch r.Op {
		case guest.OpFileStat:
			answer, err = listing.Stat(string(r.Path), r.Follow)
		case guest.OpFileList:
			answer, err = listing.List(string(r.Path))
		case guest.OpArchive:
			kind = frame.Exit
			answer, err = archive.Write(ctx, w, string(r.Path), archive.WriteOptions{
				Name: string(r.Name), Follow: r.Follow, NoXattrs: r.NoXattrs, Frame: frame.Stdout})
		case guest.OpExtract:
			in := archive.NewFrames(frame.NewReader(conn), frame.Stdin, frame.StdinEOF)
			answer, err = archive.Extract(ctx, in, string(r.Path), archive.ExtractOptions{
				Into: r.Into, Owners: r.Owners, NoXattrs: r.NoXattrs, Special: true, Direct: true, Foreign: r.Into,
				Rights: true, Unbounded: true})
		}
		return kind, answer, err
	})
}

// copying calls do for a stream with files, and answers with what it returns. w is the stream, up to a suspend of the
// VM. ctx ends with the stream, and with a suspend, which also ends what do reads.
func (s *server) copying(conn net.Conn, do func(ctx context.Context, w io.Writer) (frame.Type, any, error)) {
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
	defer stream.Release(conn)
	kind, answer, err := do(ctx, cuttable{conn, k})
	if err != nil && k.isCut() {
		err = cutOff()
	}
	if err != nil {
		sendError(conn, err)
		return
	}
	frame.WriteJSON(conn, kind, answer)
}
