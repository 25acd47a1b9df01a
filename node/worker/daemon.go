package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
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
	conn, err := d.Files(ctx, vm, banger.FileRequest{Op: banger.FileExtract, Path: []byte("/"), Into: true, NoXattrs: true})
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	sent := make(chan error, 1)
	go func() { // ends with the connection
		_, err := io.Copy(frame.Data(conn, frame.Stdin), bytes.NewReader(archive))
		sent <- err
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
	port, path, _ := strings.Cut(rest, "/")
	at := net.JoinHostPort(vm.Address, port)
	if kind == "tcp" {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "tcp", at)
		if err != nil {
			return banger.Cause(err)
		}
		return conn.Close()
	}
	r, err := http.NewRequestWithContext(ctx, "GET", "http://"+at+"/"+path, nil)
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
