// Package kubelet answers what the API server asks a node for users: logs, commands, terminals and ports of Pods.
//
// It must not know how a Pod became a VM.
package kubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/virtual-kubelet/virtual-kubelet/node/api"
	"k8s.io/client-go/util/exec"

	"banger"
	"banger/internal/api/client"
	"banger/internal/frame"
	"banger/internal/text"
)

// Pods says which VM and session a container is.
type Pods interface {
	VM(namespace, name string) (string, error)
	Session(namespace, name, container string) (string, error)
}

// Kubelet answers for the Pods of one node.
type Kubelet struct {
	Pods   Pods
	Daemon *client.Client
}

// Logs returns what a container has written.
func (k Kubelet) Logs(ctx context.Context, namespace, name, container string, o api.ContainerLogOpts) (io.ReadCloser,
	error) {
	vm, err := k.Pods.VM(namespace, name)
	if err != nil {
		return nil, err
	}
	session, err := k.Pods.Session(namespace, name, container)
	if err != nil {
		return nil, err
	}
	if o.Previous {
		return nil, banger.Errorf(banger.CodeInvalid, "the output of all runs is one: leave out --previous")
	}
	v := banger.LogView{Follow: o.Follow, Tail: -1, Since: o.SinceTime, Stamps: true}
	if o.Tail > 0 {
		v.Tail = o.Tail
	}
	if o.SinceSeconds > 0 {
		v.Since = time.Now().Add(-time.Duration(o.SinceSeconds) * time.Second)
	}
	stream, err := k.Daemon.SessionOutput(ctx, vm, session, v)
	if err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	go func() { // ends with the stream or with the reader
		defer stream.Close()
		w.CloseWithError(lines(stream, w, o.Timestamps))
	}()
	if o.LimitBytes > 0 {
		return limited{io.LimitReader(r, int64(o.LimitBytes)), r}, nil
	}
	return r, nil
}

type limited struct {
	io.Reader
	io.Closer
}

// Exec runs a command in a container's VM.
func (k Kubelet) Exec(ctx context.Context, namespace, name, _ string, args []string, a api.AttachIO) error {
	vm, err := k.Pods.VM(namespace, name)
	if err != nil {
		return err
	}
	e := banger.Exec{Args: args, TTY: a.TTY(), Stdin: a.Stdin() != nil}
	if a.TTY() {
		e.Env = []string{"TERM=xterm-256color"}
		e.Rows, e.Cols = 24, 80
	}
	conn, err := k.Daemon.Exec(ctx, vm, e)
	if err != nil {
		return refused(err)
	}
	return carry(ctx, conn, a)
}

// Attach connects with a container.
func (k Kubelet) Attach(ctx context.Context, namespace, name, container string, a api.AttachIO) error {
	vm, err := k.Pods.VM(namespace, name)
	if err != nil {
		return err
	}
	session, err := k.Pods.Session(namespace, name, container)
	if err != nil {
		return err
	}
	v := banger.SessionView{Screen: a.TTY(), ReadOnly: a.Stdin() == nil}
	if a.TTY() {
		v.Rows, v.Cols = 24, 80
	}
	conn, err := k.Daemon.AttachSession(ctx, vm, session, v)
	if err != nil {
		return err
	}
	return carry(ctx, conn, a)
}

// refused returns the error for a command that could not start, with the exit code that shells give.
func refused(err error) error {
	switch banger.CodeOf(err) {
	case banger.CodeCommandAbsent:
		return exec.CodeExitError{Err: err, Code: 127}
	case banger.CodeCannotRun:
		return exec.CodeExitError{Err: err, Code: 126}
	}
	return err
}

// carry passes on what a stream of a VM and a user say to each other, until the command has ended.
func carry(ctx context.Context, conn net.Conn, a api.AttachIO) error {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	out := &sender{conn: conn}
	if in := a.Stdin(); in != nil {
		go func() { // ends with the user's side, or with conn
			io.Copy(out, in)
			out.send(frame.StdinEOF, nil)
		}()
	}
	if a.TTY() {
		go func() { // ends with ctx
			for {
				select {
				case <-ctx.Done():
					return
				case size := <-a.Resize():
					said, _ := json.Marshal(frame.Resize{Rows: size.Height, Cols: size.Width})
					out.send(frame.Size, said)
				}
			}
		}()
	}
	frames := frame.NewReader(conn)
	for {
		t, p, err := frames.Next()
		if err != nil {
			return banger.Errorf(banger.CodeGuest, "the VM went away: %w", banger.Cause(err))
		}
		switch t {
		case frame.Stdout:
			_, err = a.Stdout().Write(p)
		case frame.Stderr:
			if a.Stderr() != nil {
				_, err = a.Stderr().Write(p)
			}
		case frame.Screen:
			_, err = a.Stdout().Write(p)
		case frame.Exit:
			return ended(p)
		case frame.Error:
			var e banger.Error
			if json.Unmarshal(p, &e) != nil {
				return banger.Errorf(banger.CodeGuest, "the VM sent a broken error")
			}
			return refused(text.Error(e))
		}
		if err != nil {
			return err
		}
	}
}

// sender sends frames of several goroutines.
type sender struct {
	mu   sync.Mutex
	conn net.Conn
}

func (s *sender) send(t frame.Type, p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return frame.Write(s.conn, t, p)
}

// Write sends what the user types.
func (s *sender) Write(p []byte) (n int, err error) {
	for n < len(p) {
		part := p[n:min(len(p), n+frame.MaxData)]
		if err := s.send(frame.Stdin, part); err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, nil
}

// ended returns how a command has ended, as the API server passes it on.
func ended(p []byte) error {
	var exit banger.Exit
	if err := json.Unmarshal(p, &exit); err != nil {
		return banger.Errorf(banger.CodeGuest, "the VM sent a broken answer")
	}
	if code := exit.Status(); code != 0 {
		return exec.CodeExitError{Err: fmt.Errorf("the command ended with %d", code), Code: code}
	}
	return nil
}
