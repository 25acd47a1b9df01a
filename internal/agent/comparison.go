package agent

import (
	"bufio"
	"context"
	"net"

	"banger"
	"banger/internal/agent/compare"
	"banger/internal/frame"
)

// comparer is a system with the disks of other VMs.
type comparer interface {
	// Trees returns the directory of the image, and upper directories on it. before is "" for the image alone.
	Trees() (image, before, after string)
}

// isOurs reports whether banger makes a file in each VM.
func isOurs(path string) bool {
	switch path {
	case "lib/modules", "usr/lib/modules", "run/banger-boot-id":
		return true
	}
	return ours[path] || isMountPoint(path)
}

// compare answers with what differs on the disks of other VMs.
func (s *server) compare(conn net.Conn, patch bool) {
	disks, ok := s.system.(comparer)
	if !ok {
		sendError(conn, banger.Errorf(banger.CodeInvalid, "this guest has no disks to compare"))
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if c, ok := conn.(interface{ Done() <-chan struct{} }); ok {
		go func() { // ends with the stream, which its handler closes
			<-c.Done()
			cancel()
		}()
	}
	o := compare.Options{Patch: patch, Quiet: isOurs}
	o.Image, o.Before, o.After = disks.Trees()
	w := bufio.NewWriterSize(conn, 64<<10)
	err := compare.Trees(ctx, o, func(c banger.FileChange) error {
		patch := c.Patch
		c.Patch = ""
		if err := frame.WriteJSON(w, frame.Response, c); err != nil {
			return err
		}
		_, err := frame.Data(w, frame.Stdout).Write([]byte(patch))
		return err
	})
	if err == nil {
		err = frame.WriteJSON(w, frame.Exit, struct{}{})
	}
	if ferr := w.Flush(); err == nil && ferr != nil {
		return // the host is gone
	}
	if err != nil {
		sendError(conn, err)
	}
}
