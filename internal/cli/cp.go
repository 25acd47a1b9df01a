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
	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/api"
	"banger/internal/archive"
)

func (a *app) cpCommand() *cobra.Command {
	cp := fileCopy{app: a, patience: copyPatience}
	c := &cobra.Command{
		Use: "cp [flags] SRC VM:DST | VM:SRC DST", Short: "Copy files between here and a VM", Args: usage(cobra.ExactArgs(2)),
		Long: `Copy a file or tree into a running VM or out of it. The image needs no program for it.

DST follows docker's rules: an existing directory takes SRC into it, SRC/. stands for the content of a
directory, a missing last part becomes SRC's new name, and a missing parent is an error. "-" is a tar on stdin
or stdout. A local path with a colon is written ./a:b.

Modes, times, links, holes and extended attributes are kept. Owners are kept with --archive; without it files
become root's in a VM, and yours here. What comes out of a VM has setuid, setgid and capabilities only with
--archive. A tar on stdout is what the VM sends, unchecked.`,
		Example: `  banger cp notes.txt box:/root/
  banger cp box:/var/log/. logs
  tar c . | banger cp - box:/srv
  banger cp box:/etc - | tar t`,
		RunE: func(c *cobra.Command, args []string) error { return cp.run(c.Context(), args[0], args[1]) },
	}
	c.Flags().BoolVarP(&cp.archive, "archive", "a", false,
		"keep uid and gid, and out of a VM setuid, setgid and capabilities; as root also device nodes and fifos")
	c.Flags().BoolVarP(&cp.follow, "follow-link", "L", false, "copy what the symlink SRC leads to")
	c.Flags().BoolVar(&cp.noXattrs, "no-xattrs", false, "do not keep extended attributes")
	return c
}

// fileCopy is one `banger cp`.
type fileCopy struct {
	*app
	archive, follow, noXattrs bool

	patience time.Duration // how long the VM may neither send nor take anything
}

// copyPatience is long, because a guest may be emulated and its disk may be limited.
const copyPatience = 60 * time.Second

// splitPlace tells VM:PATH from a local path, as docker does. For a local path, vm is "".
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
	if err != nil && ctx.Err() != nil && banger.CodeOf(err) != banger.CodeCanceled {
		return banger.Errorf(banger.CodeCanceled, "canceled")
	}
	if lost := report.Lost(); lost != "" {
		fmt.Fprintln(c.stderr, "banger:", lost)
	}
	return err
}

// fromVM copies a file or tree of a VM to this host. What arrives must have the type that the VM stated before.
func (c *fileCopy) fromVM(ctx context.Context, client *api.Client, m *meter, vm, src, dst string) (report banger.CopyReport, err error) {
	name := archive.Base(src)
	o := archive.ExtractOptions{Name: name, Owners: c.archive, Rights: c.archive,
		Special: c.archive && os.Geteuid() == 0, NoXattrs: c.noXattrs}
	if dst != "-" {
		info, err := client.StatFile(ctx, vm, banger.FileRequest{Path: []byte(src), Follow: c.follow})
		if err != nil {
			return report, err
		}
		if o.Kind = info.Mode & unix.S_IFMT; o.Kind == 0 {
			return report, banger.Errorf(banger.CodeGuest, "the agent does not say what %.300q is", src)
		}
	}
	conn, err := client.Files(ctx, vm,
		banger.FileRequest{Op: banger.FileArchive, Path: []byte(src), Name: []byte(name), Follow: c.follow, NoXattrs: c.noXattrs})
	if err != nil {
		return report, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	frames := archive.NewFrames(banger.NewFrameReader(conn), banger.FrameStdout, banger.FrameExit)
	in := meteredReader{frames, m, conn, c.patience, new(banger.CopyReport)}
	if dst == "-" {
		_, err = io.Copy(c.stdout, in)
	} else {
		report, err = archive.Extract(ctx, in, dst, o)
	}
	if err == nil {
		report.Add(*in.theirs)
	}
	return report, err
}

// toVM copies a local file, tree or tar into a VM.
func (c *fileCopy) toVM(ctx context.Context, client *api.Client, m *meter, src, vm, dst string) (report banger.CopyReport, err error) {
	conn, err := client.Files(ctx, vm,
		banger.FileRequest{Op: banger.FileExtract, Path: []byte(dst), Into: src == "-", Owners: c.archive, NoXattrs: c.noXattrs})
	if err != nil {
		return report, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	answer := make(chan error, 1)
	go func() { // ends with conn
		answer <- silent(readReport(conn, &report), c.patience)
	}()
	out := &meteredWriter{w: conn, m: m, patience: c.patience}
	var ours banger.CopyReport
	sent := make(chan error, 1)
	go func() { // ends with conn; a read of stdin, which cannot be cut short, may outlive it
		var err error
		ours, err = c.send(ctx, out, src)
		wait := c.patience
		if banger.CodeOf(err) == banger.CodeTimeout { // the VM has used all its time
			wait = min(wait, time.Second)
		}
		conn.SetReadDeadline(time.Now().Add(wait))
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
		if err := <-answer; err != nil { // the answer also says why the VM took no more
			return report, err
		}
	}
	report.Add(ours)
	return report, nil
}

// send writes src as frames to w.
func (c *fileCopy) send(ctx context.Context, w io.Writer, src string) (report banger.CopyReport, err error) {
	if src == "-" {
		err = sendFrames(w, c.stdin)
	} else {
		report, err = archive.Write(ctx, w, src,
			archive.WriteOptions{Name: archive.Base(src), Follow: c.follow, NoXattrs: c.noXattrs, Frame: banger.FrameStdin})
	}
	if err == nil {
		err = banger.WriteFrame(w, banger.FrameStdinEOF, nil)
	}
	return report, err
}

// sendFrames copies r to w in frames. It fills each frame behind its header, and so copies each chunk only once.
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

// readReport reads the agent's only answer to an extract.
func readReport(conn net.Conn, report *banger.CopyReport) error {
	answer := archive.NewFrames(banger.NewFrameReader(conn), 0, banger.FrameResponse) // the answer has no data
	if _, err := io.Copy(io.Discard, answer); err != nil {
		return err
	}
	if err := json.Unmarshal(answer.Last(), report); err != nil {
		return banger.Errorf(banger.CodeGuest, "the agent sent a broken report: %w", err)
	}
	return nil
}

// meter shows how much was copied: on a terminal continuously, elsewhere once at the end.
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

// meteredReader reads what a VM sends. A read fails if the VM sends nothing for longer than patience.
type meteredReader struct {
	*archive.Frames
	m        *meter
	conn     net.Conn
	patience time.Duration
	theirs   *banger.CopyReport // set at the end
}

// ReadChunk returns io.EOF only after it has also read the VM's report.
func (r meteredReader) ReadChunk(max int) ([]byte, error) {
	r.conn.SetReadDeadline(time.Now().Add(r.patience))
	p, err := r.Frames.ReadChunk(max)
	r.m.add(len(p))
	if err == io.EOF {
		if err := json.Unmarshal(r.Last(), r.theirs); err != nil {
			return nil, banger.Errorf(banger.CodeGuest, "the agent sent a broken report: %w", err)
		}
	}
	return p, silent(err, r.patience)
}

// silent turns a deadline error of a connection into an error that says that the VM is silent. It returns other
// errors unchanged.
func silent(err error, patience time.Duration) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return banger.Errorf(banger.CodeTimeout, "the VM's agent is silent: for %s nothing came of the copy or was taken of it", patience).
		WithHint("see whether the VM works: banger logs VM; a stop and a start mend one that does not")
}

// WriteTo implements io.WriterTo. It copies without an intermediate buffer.
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

// meteredWriter sends to a VM. A write fails if the VM takes nothing for longer than patience. failed says whether
// the connection has failed.
type meteredWriter struct {
	w        net.Conn
	m        *meter
	patience time.Duration
	failed   bool
}

func (w *meteredWriter) Write(p []byte) (int, error) {
	w.w.SetWriteDeadline(time.Now().Add(w.patience))
	n, err := w.w.Write(p)
	w.m.add(n)
	w.failed = w.failed || err != nil
	return n, silent(err, w.patience)
}
