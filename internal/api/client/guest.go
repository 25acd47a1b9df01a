package client

import (
	"context"
	"net"
	"net/url"
	"strconv"

	"banger"
	"banger/internal/api/wire"
)

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
	return c.upgrade(ctx, vmPath(ref, "attach"), sizeQuery(url.Values{}, rows, cols), nil, wire.UpgradeExec)
}

// Exec opens the stream of a command, which carries frames of package frame in both directions. The caller owns the
// connection.
func (c guestClient) Exec(ctx context.Context, ref string, e banger.Exec) (net.Conn, error) {
	if !e.Main { // before JSON replaces bytes that are not UTF-8
		if err := e.Check(); err != nil {
			return nil, err
		}
	}
	return c.upgrade(ctx, vmPath(ref, "exec"), nil, e, wire.UpgradeExec)
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

// Files opens the stream of a copy with the frames that the server's route describes. The caller owns the connection.
func (c guestClient) Files(ctx context.Context, ref string, r banger.FileRequest) (net.Conn, error) {
	return c.upgrade(ctx, vmPath(ref, "files"), fileQuery(r), nil, wire.UpgradeFiles)
}

// StatFile describes the file at a path of a VM.
func (c guestClient) StatFile(ctx context.Context, ref string, r banger.FileRequest) (info banger.FileInfo, err error) {
	r.Op = banger.FileStat
	return info, c.call(ctx, "POST", vmPath(ref, "files"), fileQuery(r), nil, &info)
}

// SSH connects to the SSH server of a VM. The caller owns the connection.
func (c guestClient) SSH(ctx context.Context, ref string, r banger.SSH) (net.Conn, error) {
	return c.upgrade(ctx, vmPath(ref, "ssh"), nil, r, wire.UpgradeSSH)
}

// Processes returns the processes of a running VM.
func (c guestClient) Processes(ctx context.Context, ref string) (list []banger.Process, err error) {
	return list, c.call(ctx, "GET", vmPath(ref, "processes"), nil, nil, &list)
}

// Stats returns what a running VM has used.
func (c guestClient) Stats(ctx context.Context, ref string) (st banger.Stats, err error) {
	return st, c.call(ctx, "GET", vmPath(ref, "stats"), nil, nil, &st)
}
