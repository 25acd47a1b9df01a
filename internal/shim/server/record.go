package server

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"banger/internal/frame"
	"banger/internal/guest"
	"banger/internal/output"
	"banger/internal/shim"
	"banger/internal/untrusted"
)

// recordAgain is the pause before the agent is asked again for the main command's output.
const recordAgain = 200 * time.Millisecond

// maxSaid is how many errors of one boot are in the shim's log.
const maxSaid = 20

// recordTime is how long output is still recorded after the VM's end, when the main command's client reads slowly.
const recordTime = time.Second

// recorder stores what the main command writes, and gives it to the main command's clients.
type recorder struct {
	log      *output.Log
	moved    atomic.Uint64 // bytes for the clients of the main command
	position uint64        // behind the last record; mu guards it

	mu       sync.Mutex
	attached []*attachment
	held     bool   // records are left to the next shim
	again    func() // ends the present request for output
}

func openRecorder(path string) (*recorder, error) {
	log, err := output.Open(path)
	return &recorder{log: log}, err
}

// openLogs opens what is written of a VM, and removes what was left of its last start.
func openLogs(resumes bool) (*console, *recorder, error) {
	con, err := openConsole(shim.ConsoleFile)
	if err != nil {
		return nil, nil, err
	}
	rec, err := openRecorder(shim.OutputFile)
	if err != nil {
		con.close()
		return nil, nil, err
	}
	if resumes {
		rec.restore()
	}
	os.Remove(shim.ExitFile)
	os.Remove(shim.DecisionsFile)
	return con, rec, nil
}

// keepOutput records until the main command's output, the VM or ctx has ended. When the connection to the agent fails,
// or the agent breaks the protocol, it asks again.
func (s *server) keepOutput(ctx context.Context) {
	said := 0 // the number of errors in the log, which a hostile guest could fill
	for ctx.Err() == nil {
		err := s.recorder.follow(ctx, s.agent())
		if err == nil || ctx.Err() != nil {
			return
		}
		select {
		case <-s.proc.Done(): // the end of a connection to a VM that has ended is no error
			return
		default:
		}
		if said++; said <= maxSaid {
			s.log.Warn("the main command's output", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-s.proc.Done():
			return
		case <-time.After(recordAgain): // back-off: a broken guest must not cause a busy loop
		}
	}
}

// follow takes output from where the recorder is, until the output, the request or ctx ends.
func (r *recorder) follow(ctx context.Context, agent guest.Client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.mu.Lock()
	from := r.position
	r.again = cancel
	r.mu.Unlock()
	return agent.Output(ctx, from, r.take)
}

// positionFile says how far a suspended VM's output was recorded. The agent keeps what comes behind it.
const positionFile = "output.at"

// hold takes no more records, and stores where the shim that resumes the VM goes on.
func (r *recorder) hold() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = true
	return r.storePosition(positionFile)
}

// storePosition stores how far is recorded. r.mu is held.
func (r *recorder) storePosition(path string) error {
	f, err := untrusted.Create(path, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintln(f, r.position)
	return errors.Join(err, f.Sync())
}

// goOn takes records again, behind those that it has.
func (r *recorder) goOn() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = false
	if r.again != nil {
		r.again()
	}
}

// restore goes on where the shim before has stopped. Without its file, it begins with the first byte that the agent
// has.
func (r *recorder) restore() {
	r.position = guest.FirstOutput
	if data, err := untrusted.ReadFile(positionFile, 64); err == nil {
		fmt.Sscan(string(data), &r.position)
	}
}

// take stores a record, and returns when the clients have it too. A client that reads slowly slows the command down.
func (r *recorder) take(record guest.Record) {
	r.mu.Lock()
	if r.held {
		r.mu.Unlock()
		return
	}
	r.log.Append(record.Stream, record.Time, record.Data)
	r.position = record.Position + uint64(len(record.Data))
	attached := slices.Clone(r.attached)
	r.mu.Unlock()
	for _, a := range attached {
		a.send(record)
	}
}

// maxPending is how much output waits for one late client that does not know yet that the command runs, in bytes. A
// single larger record may wait too. What is older is in the log alone.
const maxPending = 64 << 10

// attachment is one client of the main command. It gets what the agent sends on the command's stream, and the output
// between frame.Started and frame.Exit.
type attachment struct {
	*net.UnixConn
	recorder *recorder
	started  chan struct{} // closed when the client has frame.Started
	gone     chan struct{} // closed when the client gets nothing more
	late     bool          // there was output before

	mu      sync.Mutex // serialises frames
	begun   bool       // started is closed
	pending []byte     // frames of output for a late client: they came before frame.Started

	rest []byte // the start of a frame from the agent; only Write uses it
}

// attach adds a client. Before there is output, that waits for the client, which may be the one that starts the main
// command. Output does not wait for later clients: they get what comes from now on.
func (r *recorder) attach() *attachment {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := &attachment{recorder: r, started: make(chan struct{}), gone: make(chan struct{}),
		late: r.position > 0}
	r.attached = append(r.attached, a)
	return a
}

// leave says that the client gets nothing more.
func (a *attachment) leave() {
	a.recorder.mu.Lock()
	defer a.recorder.mu.Unlock()
	if i := slices.Index(a.recorder.attached, a); i >= 0 {
		a.recorder.attached = slices.Delete(slices.Clone(a.recorder.attached), i, i+1)
		close(a.gone)
	}
}

// to returns the connection for what the agent sends to the client at conn.
func (a *attachment) to(conn net.Conn) net.Conn {
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return conn
	}
	a.UnixConn = socket
	return a
}

// send sends a record to the client once that knows that the command runs. It waits for that, unless the client is
// late.
func (a *attachment) send(record guest.Record) {
	if !a.late {
		select {
		case <-a.started:
		case <-a.gone:
			return
		}
	}
	head := make([]byte, frame.Header)
	frame.PutHeader(head, record.Stream, len(record.Data))
	a.recorder.moved.Add(uint64(len(record.Data)))
	a.mu.Lock()
	err := a.give(head, record.Data)
	a.mu.Unlock()
	if err != nil {
		a.leave()
	}
}

// give writes a frame, or keeps it until the client knows that the command runs. The command may have answered what the
// client typed before frame.Started is here, since both come from the agent on their own ways. a.mu is held.
func (a *attachment) give(head, data []byte) error {
	if a.begun {
		_, err := (&net.Buffers{head, data}).WriteTo(a.UnixConn)
		return err
	}
	if len(a.pending)+len(data) > maxPending {
		a.pending = nil // what is shown later has no gap
	}
	a.pending = append(append(a.pending, head...), data...)
	return nil
}

// Write passes on bytes of the agent as soon as they make up whole frames, because frames of output come between.
func (a *attachment) Write(p []byte) (int, error) {
	a.rest = append(a.rest, p...)
	for len(a.rest) >= frame.Header {
		length := binary.BigEndian.Uint32(a.rest[4:])
		if length > frame.Max {
			return 0, fmt.Errorf("the agent sent a frame of %d bytes", length)
		}
		n := frame.Header + int(length)
		if len(a.rest) < n {
			break
		}
		if err := a.pass(a.rest[:n]); err != nil {
			return 0, err
		}
		a.rest = append(a.rest[:0], a.rest[n:]...)
	}
	return len(p), nil
}

// pass writes a frame of the agent. Behind frame.Started comes the output that has waited for it.
func (a *attachment) pass(whole []byte) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if frame.Type(whole[0]) != frame.Started || a.begun {
		_, err := a.UnixConn.Write(whole)
		return err
	}
	_, err := (&net.Buffers{whole, a.pending}).WriteTo(a.UnixConn)
	a.begun, a.pending = true, nil
	close(a.started)
	return err
}

// offerMain is offered for the stream of the main command, whose output comes from the recorder.
func (s *server) offerMain(ctx context.Context, conn, stream net.Conn) {
	a := s.recorder.attach()
	defer a.leave()
	s.offer(ctx, conn, stream, a.to)
}
