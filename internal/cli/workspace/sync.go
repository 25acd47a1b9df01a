package workspace

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"banger/internal/api/client"
	"banger/internal/cli/command"
	"banger/internal/cli/filecopy"
	"banger/internal/cli/render"
)

func newSync(a *command.App) *cobra.Command {
	return &cobra.Command{
		Use:   "sync VM[/WORKSPACE]",
		Short: "Bring what has changed on this host since the baseline into the VM",
		Long: `Bring what has changed on this host since the baseline into the VM, merged with what was changed there, or
change nothing and list what conflicts. What came in is then the baseline. If the VM has no commits of its own, its
branch moves to this host's commit; otherwise that commit is refs/banger/host there.`,
		Args: command.Usage(cobra.ExactArgs(1)),
		RunE: a.WithClient(func(ctx context.Context, c *client.Client, args []string) error {
			p, err := findActive(ctx, a, c, args[0], "change a workspace of")
			if err != nil {
				return err
			}
			return syncPlace(ctx, a, p)
		}),
	}
}

// syncPlace brings what has changed on this host into a workspace. Of p it needs what find sets before it reads.
func syncPlace(ctx context.Context, a *command.App, p *place) error {
	unlock, err := p.home.Lock(ctx, p.it.ID)
	if err != nil {
		return err
	}
	defer unlock()
	if err := p.read(ctx); err != nil { // another process may have changed it
		return err
	}
	capture, err := p.capture(ctx, all)
	if err != nil {
		return err
	}
	defer capture.Close()
	notes(a, capture.Notes...)
	s, err := capture.Sync(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	if len(s.Conflicts) > 0 {
		return conflicting(a, s.Conflicts, "the VM's working tree")
	}
	if s.Nothing() {
		return nil
	}
	baseline, err := s.Keep(p.home)
	if err != nil {
		return err
	}
	if err := p.send(ctx, s.Removed(), s.Write, baseline); err != nil {
		return err
	}
	lines(a.Stdout, s.Changes)
	return nil
}

// send changes the files of a workspace: it removes some, writes those of a tar, and then names the baseline.
func (p *place) send(ctx context.Context, removed []string,
	write func(ctx context.Context, w io.Writer, uid, gid uint32) error, baseline string) error {
	if err := p.remove(ctx, removed); err != nil {
		return err
	}
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() { // ends with the copy
		err := write(ctx, w, p.it.UID, p.it.GID)
		w.CloseWithError(err)
		written <- err
	}()
	places, err := filecopy.ParsePlaces("-", p.vm+":"+p.it.Path, false, false)
	if err == nil {
		_, err = filecopy.Copy{Client: p.client, Stdin: r, Archive: true, NoXattrs: true,
			Progress: render.NewProgress(io.Discard, true), Patience: filecopy.Patience}.Run(ctx, places)
	}
	r.CloseWithError(io.ErrClosedPipe)
	if werr := <-written; err == nil && werr != nil {
		err = fmt.Errorf("writing what the VM gets: %w", werr)
	}
	if err != nil {
		return err
	}
	_, err = p.client.SetWorkspaceBaseline(ctx, p.vm, p.it.Name, baseline, nil)
	return err
}

// removedAtOnce is how many bytes of paths one request removes.
const removedAtOnce = 256 << 10

// remove removes files of a workspace.
func (p *place) remove(ctx context.Context, paths []string) error {
	for len(paths) > 0 {
		var some [][]byte
		for size := 0; len(paths) > 0 && size+len(paths[0]) < removedAtOnce; paths = paths[1:] {
			some = append(some, []byte(paths[0]))
			size += len(paths[0])
		}
		if _, err := p.client.SetWorkspaceBaseline(ctx, p.vm, p.it.Name, p.it.Baseline, some); err != nil {
			return err
		}
	}
	return nil
}

// restore brings in again what came in after the file system, into a workspace that was reset.
func restore(ctx context.Context, p *place) error {
	later, err := p.home.Later(ctx, p.record)
	if err != nil {
		return err
	}
	return p.send(ctx, later.Removed(), later.Write, p.record.Baseline)
}
