// Package filecopy copies files and trees between this host and a VM, and limits how long a VM may be silent meanwhile.
//
// It must not know flags or terminals, nor trust what a VM sends.
package filecopy

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/api/client"
	"banger/internal/archive"
	"banger/internal/cli/render"
	"banger/internal/frame"
)

// Copy says what is copied, and how.
type Copy struct {
	Client *client.Client
	Stdin  io.Reader // the tar of the source "-", which may be compressed
	Stdout io.Writer // gets the tar of the destination "-"

	Archive  bool // keep owners, and out of a VM setuid, setgid and capabilities
	Follow   bool // copy what the symlink at the source leads to
	NoXattrs bool // do not keep extended attributes

	Progress *render.Progress
	Patience time.Duration // how long the VM may neither send nor take anything
}

// Patience is long, because a guest may be emulated and its disk may be limited.
const Patience = 60 * time.Second

// Places are the source and the destination of a copy, of which one is in a VM.
type Places struct {
	src, dst         string // as the user wrote them
	srcVM, dstVM     string // "" for the one that is on this host
	srcPath, dstPath string
}

// ParsePlaces tells a copy out of a VM from one into a VM. inTerminal and outTerminal say whether stdin and stdout are
// terminals, which neither give nor take a tar.
func ParsePlaces(src, dst string, inTerminal, outTerminal bool) (Places, error) {
	p := Places{src: src, dst: dst}
	p.srcVM, p.srcPath = splitPlace(src)
	p.dstVM, p.dstPath = splitPlace(dst)
	switch {
	case p.srcVM != "" && p.dstVM != "":
		return p, errors.New("a copy from one VM to another is not possible; copy to this host first")
	case p.srcVM == "" && p.dstVM == "":
		return p, errors.New("neither SRC nor DST is in a VM: write VM:PATH")
	case p.srcPath == "" || p.dstPath == "":
		return p, errors.New("a path is missing: write VM:PATH")
	case dst == "-" && outTerminal:
		return p, errors.New("a tar is not for a terminal")
	case src == "-" && inTerminal:
		return p, errors.New("stdin is a terminal, not a tar")
	}
	return p, nil
}

// Check returns an error if the source is on this host and does not exist.
func (p Places) Check() error {
	if p.srcVM != "" || p.src == "-" {
		return nil
	}
	if _, err := os.Lstat(p.src); err != nil {
		return banger.Errorf(banger.CodeNotFound, "cannot copy: %w", err)
	}
	return nil
}

// Run copies. The report says what was lost on the way, also after an error.
func (c Copy) Run(ctx context.Context, p Places) (report banger.CopyReport, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m := &meter{progress: c.Progress, event: banger.Event{Stage: "copy", Text: p.src + " to " + p.dst}}
	if p.srcVM != "" {
		report, err = c.fromVM(ctx, m, p.srcVM, p.srcPath, p.dst)
	} else {
		report, err = c.toVM(ctx, m, p.src, p.dstVM, p.dstPath)
	}
	m.end(err)
	if err != nil && ctx.Err() != nil && banger.CodeOf(err) != banger.CodeCanceled {
		return banger.CopyReport{}, banger.Errorf(banger.CodeCanceled, "canceled")
	}
	return report, err
}

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

// fromVM copies a file or tree of a VM to this host. What arrives must have the type that the VM stated before.
func (c Copy) fromVM(ctx context.Context, m *meter, vm, src, dst string) (report banger.CopyReport, err error) {
	name := archive.Base(src)
	o := archive.ExtractOptions{
		Name:     name,
		Owners:   c.Archive,
		Rights:   c.Archive,
		Special:  c.Archive && os.Geteuid() == 0,
		NoXattrs: c.NoXattrs,
	}
	if dst != "-" {
		info, err := c.Client.StatFile(ctx, vm, banger.FileRequest{Path: []byte(src), Follow: c.Follow})
		if err != nil {
			return report, err
		}
		if o.Kind = info.Mode & unix.S_IFMT; o.Kind == 0 {
			return report, banger.Errorf(banger.CodeGuest, "the agent does not say what %.300q is", src)
		}
	}
	conn, err := c.Client.Files(ctx, vm, banger.FileRequest{
		Op:       banger.FileArchive,
		Path:     []byte(src),
		Name:     []byte(name),
		Follow:   c.Follow,
		NoXattrs: c.NoXattrs,
	})
	if err != nil {
		return report, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	frames := archive.NewFrames(frame.NewReader(conn), frame.Stdout, frame.Exit)
	in := meteredReader{frames, m, conn, c.Patience, new(banger.CopyReport)}
	if dst == "-" {
		_, err = io.Copy(c.Stdout, in)
	} else {
		report, err = archive.Extract(ctx, in, dst, o)
	}
	if err == nil {
		join(&report, *in.theirs)
	}
	return report, err
}

// toVM copies a local file, tree or tar into a VM.
func (c Copy) toVM(ctx context.Context, m *meter, src, vm, dst string) (report banger.CopyReport, err error) {
	conn, err := c.Client.Files(ctx, vm, banger.FileRequest{
		Op:       banger.FileExtract,
		Path:     []byte(dst),
		Into:     src == "-",
		Owners:   c.Archive,
		NoXattrs: c.NoXattrs,
	})
	if err != nil {
		return report, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	answer := make(chan error, 1)
	go func() { // ends with conn
		answer <- silent(readReport(conn, &report), c.Patience)
	}()
	out := &meteredWriter{w: conn, m: m, patience: c.Patience}
	var ours banger.CopyReport
	sent := make(chan error, 1)
	go func() { // ends with conn; a read of stdin, which cannot be cut short, may outlive it
		var err error
		ours, err = c.send(ctx, out, src)
		wait := c.Patience
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
	join(&report, ours)
	return report, nil
}

// send writes src as frames to w.
func (c Copy) send(ctx context.Context, w io.Writer, src string) (report banger.CopyReport, err error) {
	if src == "-" {
		var tar io.Reader
		if tar, err = plainTar(c.Stdin); err == nil {
			err = sendFrames(w, tar)
		}
	} else {
		report, err = archive.Write(ctx, w, src, archive.WriteOptions{
			Name:     archive.Base(src),
			Follow:   c.Follow,
			NoXattrs: c.NoXattrs,
			Frame:    frame.Stdin,
		})
	}
	if err == nil {
		err = frame.Write(w, frame.StdinEOF, nil)
	}
	return report, err
}

// sendFrames copies r to w in frames. It fills each frame behind its header, and so copies each chunk only once.
func sendFrames(w io.Writer, r io.Reader) error {
	buf := make([]byte, frame.Header+frame.MaxData)
	for {
		n, err := r.Read(buf[frame.Header:])
		if n > 0 {
			frame.PutHeader(buf, frame.Stdin, n)
			if _, err := w.Write(buf[:frame.Header+n]); err != nil {
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
	answer := archive.NewFrames(frame.NewReader(conn), 0, frame.Response) // the answer has no data
	if _, err := io.Copy(io.Discard, answer); err != nil {
		return err
	}
	if err := json.Unmarshal(answer.Last(), report); err != nil {
		return banger.Errorf(banger.CodeGuest, "the agent sent a broken report: %w", err)
	}
	return nil
}
