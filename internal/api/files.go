package api

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"banger"
)

// upgradeFiles is the value of Upgrade on copies. Frames of package banger follow. They distinguish a complete copy,
// a late failure, and a broken connection.
const upgradeFiles = "banger-files"

// fileRequest reads ?op=&path=…, where a path may contain any byte except NUL.
func fileRequest(q url.Values) banger.FileRequest {
	return banger.FileRequest{Op: q.Get("op"), Path: []byte(q.Get("path")), Name: []byte(q.Get("name")),
		Follow: q.Get("follow") == "true",
		Into:   q.Get("into") == "true", Owners: q.Get("owners") == "true", NoXattrs: q.Get("xattrs") == "false"}
}

func fileQuery(r banger.FileRequest) url.Values {
	q := url.Values{"op": {r.Op}, "path": {string(r.Path)}}
	if len(r.Name) > 0 {
		q.Set("name", string(r.Name))
	}
	for key, on := range map[string]bool{"follow": r.Follow, "into": r.Into, "owners": r.Owners} {
		if on {
			q.Set(key, "true")
		}
	}
	if r.NoXattrs {
		q.Set("xattrs", "false")
	}
	return q
}

// files copies from or to a VM. For an extract the client sends FrameStdin and FrameStdinEOF after status 101, and
// gets FrameResponse. For an archive it gets FrameStdout and FrameExit. On failure it gets FrameError.
func (s *Server) files(w http.ResponseWriter, req *http.Request) error {
	r := fileRequest(req.URL.Query())
	if err := r.Check(); err != nil {
		return err
	}
	if r.Op == banger.FileStat {
		info, err := s.Guests.StatFile(req.Context(), req.PathValue("vm"), r)
		if err != nil {
			return err
		}
		return writeJSON(w, info)
	}
	if req.Header.Get("Upgrade") != upgradeFiles {
		return banger.Errorf(banger.CodeInvalid, "a copy needs the header Upgrade: %s", upgradeFiles)
	}
	stream, err := s.Guests.Files(req.Context(), req.PathValue("vm"), r)
	if err != nil {
		return err
	}
	return s.handOver(w, req, upgradeFiles, stream)
}

// giver is a stream whose other end can serve the client directly, without this process.
type giver interface {
	Give(client net.Conn) (bool, error)
}

// handOver joins the client's connection with a stream of the agent. If the stream can be given away, this process is
// no longer involved. Data of the client then costs this process nothing, and the client's command survives the end
// of this process.
func (s *Server) handOver(w http.ResponseWriter, req *http.Request, protocol string, stream net.Conn) error {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		stream.Close()
		return err
	}
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", protocol)
	if n := buf.Reader.Buffered(); n > 0 { // frames that the client sent directly after its request
		early, _ := buf.Reader.Peek(n)
		if _, err := stream.Write(early); err != nil {
			stream.Close()
		}
	}
	if g, ok := stream.(giver); ok {
		if given, _ := g.Give(conn); given {
			return conn.Close() // closing tells the client about the failure
		}
	}
	s.Splice(context.WithoutCancel(req.Context()), conn, stream)
	return nil
}

// Files opens the stream of a copy with the frames that the server's route describes. The caller owns the connection.
func (c *Client) Files(ctx context.Context, ref string, r banger.FileRequest) (net.Conn, error) {
	return c.upgrade(ctx, vmPath(ref, "files"), fileQuery(r), nil, upgradeFiles)
}

// StatFile describes the file at a path of a VM.
func (c *Client) StatFile(ctx context.Context, ref string, r banger.FileRequest) (info banger.FileInfo, err error) {
	r.Op = banger.FileStat
	return info, c.call(ctx, "POST", vmPath(ref, "files"), fileQuery(r), nil, &info)
}

// upgrade sends a request after which the connection carries another protocol.
func (c *Client) upgrade(ctx context.Context, path string, query url.Values, body any,
	protocol string) (net.Conn, error) {
	req, err := c.request(ctx, "POST", path, query, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", protocol)
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, silent(err)
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	resp, r, err := roundTrip(conn, req)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
		err = readError(resp)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return bufferedConn{conn, r}, nil
}
