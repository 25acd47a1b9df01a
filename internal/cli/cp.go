package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"banger"
	"banger/internal/api"
	"banger/internal/archive"
)

func (a *app) cpCommand() *cobra.Command {
	cp := fileCopy{app: a}
	c := &cobra.Command{
		Use: "cp [flags] SRC VM:DST | VM:SRC DST", Short: "Copy files between here and a VM", Args: usage(cobra.ExactArgs(2)),
		Long: `Copy a file or tree into a running VM or out of it. The image needs no program for it.

DST follows docker's rules: an existing directory takes SRC into it, SRC/. stands for the content of a
directory, a missing last part becomes SRC's new name, and a missing parent is an error. "-" is a tar on stdin
or stdout. A local path with a colon is written ./a:b.

Modes, times, links, holes and extended attributes are kept. Owners are kept with --archive; without it files
become root's in a VM, and yours here.`,
		Example: `  banger cp notes.txt box:/root/
  banger cp box:/var/log/. logs
  tar c . | banger cp - box:/srv
  banger cp box:/etc - | tar t`,
		RunE: func(c *cobra.Command, args []string) error { return cp.run(c.Context(), args[0], args[1]) },
	}
	c.Flags().BoolVarP(&cp.archive, "archive", "a", false, "keep uid and gid; as root also device nodes and fifos")
	c.Flags().BoolVarP(&cp.follow, "follow-link", "L", false, "copy what the symlink SRC leads to")
	c.Flags().BoolVar(&cp.noXattrs, "no-xattrs", false, "do not keep extended attributes")
	return c
}

// fileCopy is one `banger cp`.
type fileCopy struct {
	*app
	archive, follow, noXattrs bool
}

// splitPlace tells VM:PATH from a local path, as docker does.
func splitPlace(arg string) (vm, path string) {
	if strings.HasPrefix(arg, "/") || strings.HasPrefix(arg, ".") {
		return "", arg
	}
	vm, path, ok := strings.Cut(arg, ":")
	if !ok || strings.Contains(vm, "/") {
		return "", arg
	}
	return vm, path
}

func (c *fileCopy) run(ctx context.Context, src, dst string) error {
	srcVM, srcPath := splitPlace(src)
	dstVM, dstPath := splitPlace(dst)
	var wrong string
	switch {
	case srcVM != "" && dstVM != "":
		wrong = "a copy from one VM to another is not possible; copy to this host first"
	case srcVM == "" && dstVM == "":
		wrong = "neither SRC nor DST is in a VM: write VM:PATH"
	case srcPath == "" || dstPath == "":
		wrong = "a path is missing: write VM:PATH"
	case dst == "-" && isTerminal(c.stdout):
		wrong = "a tar is not for a terminal"
	case src == "-" && isTerminal(c.stdin):
		wrong = "stdin is a terminal, not a tar"
	}
	if wrong != "" {
		return &exitError{exitUsage, errors.New(wrong)}
	}
	if srcVM == "" && src != "-" {
		if _, err := os.Lstat(src); err != nil {
			return banger.Errorf(banger.CodeNotFound, "cannot copy: %w", err)
		}
	}
	client, err := c.connect(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m := &meter{progress: c.progress(), event: banger.Event{Stage: "copy", Text: src + " to " + dst}}
	var report banger.CopyReport
	if srcVM != "" {
		report, err = c.fromVM(ctx, client, m, srcVM, srcPath, dst)
	} else {
		report, err = c.toVM(ctx, client, m, src, dstVM, dstPath)
	}
	m.end(err)
	if err != nil && ctx.Err() != nil {
		return banger.Errorf(banger.CodeCanceled, "canceled")
	}
	if lost := report.Lost(); lost != "" {
		fmt.Fprintln(c.stderr, "banger:", lost)
	}
	return err
}

// fromVM copies a file or tree of a VM to this host.
func (c *fileCopy) fromVM(ctx context.Context, client *api.Client, m *meter, vm, src, dst string) (report banger.CopyReport, err error) {
	name := archive.Base(src)
	conn, err := client.Files(ctx, vm, banger.FileRequest{Op: banger.FileArchive, Path: []byte(src), Name: []byte(name), Follow: c.follow, NoXattrs: c.noXattrs})
	if err != nil {
		return report, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	frames := archive.NewFrames(banger.NewFrameReader(conn), banger.FrameStdout, banger.FrameExit)
	in := meteredReader{frames, m}
	if dst == "-" {
		_, err = io.Copy(c.stdout, in)
	} else {
		report, err = archive.Extract(ctx, in, dst, archive.ExtractOptions{Name: name, Owners: c.archive, Special: c.archive && os.Geteuid() == 0, NoXattrs: c.noXattrs})
	}
	if err != nil {
		return report, err
	}
	var theirs banger.CopyReport
	if err := json.Unmarshal(frames.Last(), &theirs); err != nil {
		return report, banger.Errorf(banger.CodeGuest, "the agent sent a broken report: %w", err)
	}
	report.Add(theirs)
	return report, nil
}

// toVM copies a local file, tree or tar into a VM.
func (c *fileCopy) toVM(ctx context.Context, client *api.Client, m *meter, src, vm, dst string) (report banger.CopyReport, err error) {
	conn, err := client.Files(ctx, vm, banger.FileRequest{Op: banger.FileExtract, Path: []byte(dst), Into: src == "-", Owners: c.archive, NoXattrs: c.noXattrs})
	if err != nil {
		return report, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	answer := make(chan error, 1)
	go func() { // ends with conn
		answer <- readReport(conn, &report)
	}()
	out := &meteredWriter{w: conn, m: m}
	var ours banger.CopyReport
	sent := make(chan error, 1)
	go func() { // ends with conn, but for a read of stdin, which cannot be cut short
		var err error
		ours, err = c.send(ctx, out, src)
		sent <- err
	}()
	select {
	case err := <-answer:
		if err != nil {
			return report, err
		}
		if err := <-sent; err != nil {
			return report, err
		}
	case err := <-sent:
		if err != nil && !out.failed {
			return report, err
		}
		if err := <-answer; err != nil { // also says why it took no more
			return report, err
		}
	}
	report.Add(ours)
	return report, nil
}

// send writes src as frames.
func (c *fileCopy) send(ctx context.Context, w io.Writer, src string) (report banger.CopyReport, err error) {
	if src == "-" {
		err = sendFrames(w, c.stdin)
	} else {
		report, err = archive.Write(ctx, w, src, archive.WriteOptions{Name: archive.Base(src), Follow: c.follow, NoXattrs: c.noXattrs, Frame: banger.FrameStdin})
	}
	if err == nil {
		err = banger.WriteFrame(w, banger.FrameStdinEOF, nil)
	}
	return report, err
}

// sendFrames fills each frame behind its header, so that a chunk is copied once.
func sendFrames(w io.Writer, r io.Reader) error {
	buf := make([]byte, banger.FrameHeader+banger.MaxData)
	for {
		n, err := r.Read(buf[banger.FrameHeader:])
		if n > 0 {
			banger.PutFrameHeader(buf, banger.FrameStdin, n)
			if _, err := w.Write(buf[:banger.FrameHeader+n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return banger.Errorf(banger.CodeInternal, "cannot read stdin: %w", err)
		}
	}
}

// readReport reads the agent's one answer to an extract.
func readReport(conn net.Conn, report *banger.CopyReport) error {
	answer := archive.NewFrames(banger.NewFrameReader(conn), banger.FrameStdout, banger.FrameResponse)
	if _, err := io.Copy(io.Discard, answer); err != nil {
		return err
	}
	if err := json.Unmarshal(answer.Last(), report); err != nil {
		return banger.Errorf(banger.CodeGuest, "the agent sent a broken report: %w", err)
	}
	return nil
}

// meter shows how much was copied: on a terminal as it grows, elsewhere once.
type meter struct {
	mu       sync.Mutex
	progress *progress
	event    banger.Event
	shown    time.Time
	over     bool // a read of stdin may outlive the copy
}

func (m *meter) add(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.event.Bytes += int64(n)
	if n == 0 {
		return
	}
	if now := time.Now(); m.shown.IsZero() || m.progress.live && now.Sub(m.shown) > 100*time.Millisecond {
		if m.over {
			return
		}
		m.shown = now
		m.progress.emit(m.event)
	}
}

func (m *meter) end(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.over = true
	if m.event.Done = true; err == nil {
		m.progress.emit(m.event)
	}
	m.progress.close()
}

type meteredReader struct {
	*archive.Frames
	m *meter
}

func (r meteredReader) ReadChunk(max int) ([]byte, error) {
	p, err := r.Frames.ReadChunk(max)
	r.m.add(len(p))
	return p, err
}

// WriteTo implements io.WriterTo, without a buffer between.
func (r meteredReader) WriteTo(w io.Writer) (total int64, err error) {
	for {
		p, err := r.ReadChunk(banger.MaxData)
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		n, err := w.Write(p)
		if total += int64(n); err != nil {
			return total, banger.Errorf(banger.CodeInternal, "cannot write the tar: %w", err)
		}
	}
}

func (r meteredReader) Read(p []byte) (int, error) {
	n, err := r.Frames.Read(p)
	r.m.add(n)
	return n, err
}

// meteredWriter notes too whether it was the connection that failed.
type meteredWriter struct {
	w      io.Writer
	m      *meter
	failed bool
}

func (w *meteredWriter) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	w.m.add(n)
	w.failed = w.failed || err != nil
	return n, err
}
