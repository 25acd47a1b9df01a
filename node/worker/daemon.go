package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"strings"

	"banger"
	"banger/internal/api/client"
	"banger/internal/frame"
	"banger/internal/text"
)

// Daemon is the daemon of this host, by its API.
type Daemon struct{ *client.Client }

// Put extracts a tar at the root of a VM.
func (d Daemon) Put(ctx context.Context, vm string, archive []byte) error {
	conn, err := d.Files(ctx, vm, banger.FileRequest{Op: banger.FileExtract, Path: []byte("/"), Into: true,
		NoXattrs: true})
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	sent := make(chan error, 1)
	go func() { // ends with the connection
		_, err := io.Copy(frame.Data(conn, frame.Stdin), bytes.NewReader(archive))
		sent <- errors.Join(err, frame.Write(conn, frame.StdinEOF, nil))
	}()
	frames := frame.NewReader(conn)
	for {
		t, p, err := frames.Next()
		switch {
		case err != nil:
			return banger.Errorf(banger.CodeGuest, "the VM took no files: %w", banger.Cause(err))
		case t == frame.Error:
			return failure(p)
		case t == frame.Response:
			return <-sent
		}
	}
}

// maxLinks is how many symlinks a path may go through, as in Linux.
const maxLinks = 40

// Real returns an absolute path without symlinks in the parts of it that exist.
func (d Daemon) Real(ctx context.Context, vm, name string) (string, error) {
	real, rest := "/", strings.Split(path.Clean(name), "/")
	for links := 0; len(rest) > 0; {
		next := path.Join(real, rest[0])
		rest = rest[1:]
		info, err := d.StatFile(ctx, vm, banger.FileRequest{Path: []byte(next)})
		switch {
		case banger.CodeOf(err) == banger.CodeNotFound:
			return path.Join(next, path.Join(rest...)), nil
		case err != nil:
			return "", err
		case len(info.Target) == 0:
			real = next
			continue
		case links == maxLinks:
			return "", banger.Errorf(banger.CodeInvalid, "the path %q goes through more than %d symlinks", name, maxLinks)
		}
		links++
		target := string(info.Target)
		if !path.IsAbs(target) {
			target = path.Join(real, target)
		}
		real, rest = "/", append(strings.Split(path.Clean(target), "/"), rest...)
	}
	return real, nil
}

func failure(p []byte) error {
	var e banger.Error
	if err := json.Unmarshal(p, &e); err != nil {
		return banger.Errorf(banger.CodeGuest, "the VM sent a broken error")
	}
	return text.Error(e)
}

// Run runs a command in a VM to its end, without its output, and returns its exit code.
func (d Daemon) Run(ctx context.Context, vm string, e banger.Exec) (int, error) {
	conn, err := d.Exec(ctx, vm, e)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	frames := frame.NewReader(conn)
	for {
		t, p, err := frames.Next()
		switch {
		case ctx.Err() != nil:
			return 0, banger.Canceled(ctx.Err())
		case err != nil:
			return 0, banger.Errorf(banger.CodeGuest, "the command was cut off: %w", banger.Cause(err))
		case t == frame.Error:
			return 0, failure(p)
		case t == frame.Exit:
			var exit banger.Exit
			if err := json.Unmarshal(p, &exit); err != nil {
				return 0, banger.Errorf(banger.CodeGuest, "the VM sent a broken answer")
			}
			return exit.Status(), nil
		}
	}
}

// Probe tries tcp:PORT or http:PORT/PATH of a VM.
func (d Daemon) Probe(ctx context.Context, vm banger.VM, check string) error {
	kind, rest, _ := strings.Cut(check, ":")
	port, page, _ := strings.Cut(rest, "/")
	at := net.JoinHostPort(vm.Address, port)
	if kind == "tcp" {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "tcp", at)
		if err != nil {
			return banger.Cause(err)
		}
		return conn.Close()
	}
	r, err := http.NewRequestWithContext(ctx, "GET", "http://"+at+"/"+page, nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(r) // which follows no redirect
	if err != nil {
		return banger.Cause(err)
	}
	resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		return fmt.Errorf("it answers with the status %d", resp.StatusCode)
	}
	return nil
}
