package exchange

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/frame"
	"banger/internal/tree"
	"banger/internal/workspace"
)

// Synced is what has come into a workspace from this host, or why nothing has.
type Synced struct {
	Changes   []workspace.Change
	Conflicts []tree.Conflict // if there are any, nothing was changed
	Notes     []string        // what could not be taken out of the VM, for the user
}

// Sync brings what has changed on this host into a workspace. Of p it needs what Find sets before it reads.
func (p *Place) Sync(ctx context.Context) (done Synced, err error) {
	unlock, err := p.Home.Lock(ctx, p.It.ID)
	if err != nil {
		return done, err
	}
	defer unlock()
	if err := p.Read(ctx); err != nil { // another process may have changed it
		return done, err
	}
	capture, err := p.Capture(ctx, All)
	if err != nil {
		return done, err
	}
	defer capture.Close()
	done.Notes = capture.Notes
	s, err := capture.Sync(ctx)
	if err != nil {
		return done, err
	}
	defer s.Close()
	if len(s.Conflicts) > 0 {
		done.Conflicts = s.Conflicts
		return done, nil
	}
	if s.Nothing() {
		return done, nil
	}
	baseline, err := s.Keep(p.Home)
	if err != nil {
		return done, err
	}
	if err := p.send(ctx, s.Removed(), s.Write, baseline); err != nil {
		return done, err
	}
	done.Changes = s.Changes
	return done, nil
}

// Reset takes back the guest's changes, and brings in again what the host has brought in after the file system. It
// returns how many processes of the guest are still in the tree as it was.
func (p *Place) Reset(ctx context.Context) (inOld int, err error) {
	baseline := p.Record.Baseline
	w, err := p.Client.ResetWorkspace(ctx, p.VM, p.It.Name)
	if err != nil || baseline == p.Record.Lower {
		return w.InOld, err
	}
	later, err := p.Home.Later(ctx, p.Record)
	if err != nil {
		return w.InOld, err
	}
	return w.InOld, p.send(ctx, later.Removed(), later.Write, baseline)
}

// writeTar writes a tar whose files belong to a user of the guest.
type writeTar func(ctx context.Context, w io.Writer, uid, gid uint32) error

// send changes the files of a workspace: it removes some, writes those of a tar, and then names the baseline.
func (p *Place) send(ctx context.Context, removed []string, write writeTar, baseline string) error {
	if err := p.remove(ctx, removed); err != nil {
		return err
	}
	if err := p.extract(ctx, write); err != nil {
		return err
	}
	_, err := p.Client.SetWorkspaceBaseline(ctx, p.VM, p.It.Name, baseline, nil)
	return err
}

// removedAtOnce is how many bytes of paths one request removes.
const removedAtOnce = 256 << 10

// remove removes files of a workspace.
func (p *Place) remove(ctx context.Context, paths []string) error {
	for len(paths) > 0 {
		var some [][]byte
		for size := 0; len(paths) > 0 && size+len(paths[0]) < removedAtOnce; paths = paths[1:] {
			some = append(some, []byte(paths[0]))
			size += len(paths[0])
		}
		if _, err := p.Client.SetWorkspaceBaseline(ctx, p.VM, p.It.Name, p.It.Baseline, some); err != nil {
			return err
		}
	}
	return nil
}

// patience is how long a VM may take nothing of a tar. It is long, because a guest may be emulated and its disk may be
// limited.
const patience = 60 * time.Second

// patient is a connection on which a write fails if the VM takes nothing for too long.
type patient struct{ net.Conn }

func (c patient) Write(b []byte) (int, error) {
	c.SetWriteDeadline(time.Now().Add(patience))
	return c.Conn.Write(b)
}

// extract writes the files of a tar into a workspace.
func (p *Place) extract(ctx context.Context, write writeTar) error {
	conn, err := p.Client.Files(ctx, p.VM, banger.FileRequest{Op: banger.FileExtract, Path: []byte(p.It.Path), Into: true,
		Owners: true, NoXattrs: true})
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	answer := make(chan error, 1)
	go func() { // ends with conn
		var report banger.CopyReport
		err := answerOf(frame.NewReader(conn), frame.Response, &report)
		if err != nil {
			conn.Close() // the VM takes no more
		}
		answer <- err
	}()
	out := bufio.NewWriterSize(frame.Data(patient{conn}, frame.Stdin), frame.MaxData)
	sent := write(ctx, out, p.It.UID, p.It.GID)
	wait := patience
	if sent == nil {
		sent = errors.Join(out.Flush(), frame.Write(patient{conn}, frame.StdinEOF, nil))
	}
	if sent != nil {
		wait = time.Second // an answer that says why is there already
	}
	conn.SetReadDeadline(time.Now().Add(wait))
	return endOf(ctx, sent, <-answer)
}

// endOf returns how a copy into a VM has ended: what sending it gave, and what the VM has answered.
func endOf(ctx context.Context, sent, answered error) error {
	switch {
	case sent == nil && answered == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(sent, os.ErrDeadlineExceeded), sent == nil && errors.Is(answered, os.ErrDeadlineExceeded):
		return banger.Errorf(banger.CodeTimeout, "the VM's agent is silent: for %s it took nothing of the workspace",
			patience).WithHint("see whether the VM works: banger logs --console VM; a stop and a start mend one that does not")
	case sent == nil, errors.Is(sent, net.ErrClosed), errors.Is(sent, unix.EPIPE), errors.Is(sent, unix.ECONNRESET):
		return answered
	}
	return fmt.Errorf("writing what the VM gets: %w", sent)
}
