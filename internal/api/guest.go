package api

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"strconv"

	"banger"
	"banger/internal/api/wire"
	"banger/internal/frame"
)

// exec connects the client with the agent's stream. The frames pass unchanged.
func exec(s *Server, w http.ResponseWriter, req *http.Request) error {
	var e banger.Exec
	if err := wire.Decode(req, &e); err != nil {
		return err
	}
	if err := wantsUpgrade(req, "an exec", upgradeExec); err != nil {
		return err
	}
	if !e.Main {
		if err := e.Check(); err != nil {
			return err
		}
	}
	stream, err := s.Guests.Exec(req.Context(), req.PathValue("vm"), e)
	if err != nil {
		return err
	}
	return s.handOver(w, req, upgradeExec, stream)
}

// attach connects the client with the main command.
func attach(s *Server, w http.ResponseWriter, req *http.Request) error {
	size, err := sizeOf(req.URL.Query())
	if err != nil {
		return err
	}
	if err := wantsUpgrade(req, "an attach", upgradeExec); err != nil {
		return err
	}
	stream, err := s.SessionStreams.AttachMain(req.Context(), req.PathValue("vm"), size)
	if err != nil {
		return err
	}
	return s.handOver(w, req, upgradeExec, stream)
}

// sizeOf returns the size of a client's terminal that a query says, or zero.
func sizeOf(q url.Values) (size frame.Resize, err error) {
	rows, err := numberOf(q, "rows", 0, 0, 1<<16-1)
	if err != nil {
		return size, err
	}
	cols, err := numberOf(q, "cols", 0, 0, 1<<16-1)
	return frame.Resize{Rows: uint16(rows), Cols: uint16(cols)}, err
}

// sizeQuery adds the size of a client's terminal to a query.
func sizeQuery(q url.Values, rows, cols uint16) url.Values {
	if rows > 0 && cols > 0 {
		q.Set("rows", strconv.Itoa(int(rows)))
		q.Set("cols", strconv.Itoa(int(cols)))
	}
	return q
}

// Attach opens a stream to a VM's main command, as the server's route describes. The caller owns the connection.
func (c guestClient) Attach(ctx context.Context, ref string, rows, cols uint16) (net.Conn, error) {
	return c.upgrade(ctx, vmPath(ref, "attach"), sizeQuery(url.Values{}, rows, cols), nil, upgradeExec)
}

// Exec opens the stream of a command, which carries frames of package frame in both directions. The caller owns the
// connection.
func (c guestClient) Exec(ctx context.Context, ref string, e banger.Exec) (net.Conn, error) {
	if !e.Main { // before JSON replaces bytes that are not UTF-8
		if err := e.Check(); err != nil {
			return nil, err
		}
	}
	return c.upgrade(ctx, vmPath(ref, "exec"), nil, e, upgradeExec)
}

// upgradeFiles is the value of Upgrade on copies. frames of package frame follow. They distinguish a complete copy,
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

// files copies from or to a VM. For an extract the client sends frame.Stdin and frame.StdinEOF after status 101, and
// gets frame.Response. For an archive it gets frame.Stdout and frame.Exit. On failure it gets frame.Error.
func files(s *Server, w http.ResponseWriter, req *http.Request) error {
	r := fileRequest(req.URL.Query())
	if err := r.Check(); err != nil {
		return err
	}
	if r.Op == banger.FileStat {
		info, err := s.Guests.StatFile(req.Context(), req.PathValue("vm"), r)
		if err != nil {
			return err
		}
		return wire.WriteJSON(w, info)
	}
	if err := wantsUpgrade(req, "a copy", upgradeFiles); err != nil {
		return err
	}
	stream, err := s.Guests.Files(req.Context(), req.PathValue("vm"), r)
	if err != nil {
		return err
	}
	return s.handOver(w, req, upgradeFiles, stream)
}

// Files opens the stream of a copy with the frames that the server's route describes. The caller owns the connection.
func (c guestClient) Files(ctx context.Context, ref string, r banger.FileRequest) (net.Conn, error) {
	return c.upgrade(ctx, vmPath(ref, "files"), fileQuery(r), nil, upgradeFiles)
}

// StatFile describes the file at a path of a VM.
func (c guestClient) StatFile(ctx context.Context, ref string, r banger.FileRequest) (info banger.FileInfo, err error) {
	r.Op = banger.FileStat
	return info, c.call(ctx, "POST", vmPath(ref, "files"), fileQuery(r), nil, &info)
}

// upgradeSSH is the value of Upgrade on connections to a VM's SSH server. The SSH protocol follows.
const upgradeSSH = "banger-ssh"

func ssh(s *Server, w http.ResponseWriter, req *http.Request) error {
	var r banger.SSH
	if err := wire.Decode(req, &r); err != nil {
		return err
	}
	if err := wantsUpgrade(req, "a connection", upgradeSSH); err != nil {
		return err
	}
	stream, err := s.Guests.SSH(req.Context(), req.PathValue("vm"), r)
	if err != nil {
		return err
	}
	return s.handOver(w, req, upgradeSSH, stream)
}

// SSH connects to the SSH server of a VM. The caller owns the connection.
func (c guestClient) SSH(ctx context.Context, ref string, r banger.SSH) (net.Conn, error) {
	return c.upgrade(ctx, vmPath(ref, "ssh"), nil, r, upgradeSSH)
}

func stats(s *Server, w http.ResponseWriter, req *http.Request) error {
	st, err := s.Guests.Stats(req.Context(), req.PathValue("vm"))
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, st)
}

func processes(s *Server, w http.ResponseWriter, req *http.Request) error {
	return wire.WriteList(w,
		func() ([]banger.Process, error) { return s.Guests.Processes(req.Context(), req.PathValue("vm")) })
}

// Processes returns the processes of a running VM.
func (c guestClient) Processes(ctx context.Context, ref string) (list []banger.Process, err error) {
	return list, c.call(ctx, "GET", vmPath(ref, "processes"), nil, nil, &list)
}

// Stats returns what a running VM has used.
func (c guestClient) Stats(ctx context.Context, ref string) (st banger.Stats, err error) {
	return st, c.call(ctx, "GET", vmPath(ref, "stats"), nil, nil, &st)
}
