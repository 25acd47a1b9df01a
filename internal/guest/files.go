package guest

import (
	"context"
	"errors"
	"net"

	"banger"
)

// Files starts a copy and returns its stream, which ends as OpArchive and OpExtract
// say, or with FrameError. The caller closes it; that ends the copy.
func (c Client) Files(ctx context.Context, r banger.FileRequest) (net.Conn, error) {
	return c.send(ctx, Request{Op: r.Op, File: &r})
}

// StatFile says what is at a path.
func (c Client) StatFile(ctx context.Context, r banger.FileRequest) (banger.FileInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var info banger.FileInfo
	conn, err := c.send(ctx, Request{Op: OpFileStat, File: &r})
	if err == nil {
		err = answer(ctx, conn, banger.FrameResponse, &info)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = banger.Errorf(banger.CodeTimeout, "the guest's agent does not answer").
			WithHint("see whether the VM works: banger logs VM; a stop and a start mend one that does not")
	}
	return info, err
}
