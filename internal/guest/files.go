package guest

import (
	"context"
	"net"

	"banger"
	"banger/internal/frame"
)

// Files starts a copy and returns its stream, which ends as described for OpArchive and OpExtract, or with
// frame.Error. The caller must close the stream, which ends the copy.
func (c Client) Files(ctx context.Context, r banger.FileRequest) (net.Conn, error) {
	return c.send(ctx, Request{Op: r.Op, File: &r})
}

// StatFile describes the file at a path, or lists a directory, as r.Op says.
func (c Client) StatFile(caller context.Context, r banger.FileRequest) (banger.FileInfo, error) {
	ctx, cancel := context.WithTimeout(caller, callTimeout)
	defer cancel()
	var info banger.FileInfo
	conn, err := c.send(ctx, Request{Op: r.Op, File: &r})
	if err == nil {
		err = answer(ctx, conn, frame.Response, &info)
	}
	return info, unanswered(caller, err)
}
