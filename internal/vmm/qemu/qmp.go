package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"banger/internal/text"
)

// maxQMPLine is the largest size of one line from QEMU, in bytes. In the worst case a hostile guest
// controls that line.
const maxQMPLine = 1 << 20

// Time limits of a command and of a migration if the caller sets no deadline.
const (
	commandTimeout   = 10 * time.Second
	migrationTimeout = 5 * time.Minute
)

func bounded(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, limit)
}

// monitor is the one connection to QEMU's machine protocol (docs/interop/qmp-spec), which lasts as
// long as QEMU lives: newline-delimited JSON, one command at a time. An answer carries the number
// of its command, so a late answer is not taken for that of a later command.
type monitor struct {
	conn *net.UnixConn
	turn chan struct{} // has capacity for the one caller that may send
	gone chan struct{} // closed when nothing more is read; err says why
	err  error

	mu        sync.Mutex
	last      int           // the number of the last command
	answer    chan qmpReply // receives the answer of that command; has capacity 1
	migration string        // the latest status that QEMU reported, with the capability "events"
	changed   chan struct{} // closed and replaced when migration changes, or the guest continues
}

type qmpReply struct {
	ID     int             `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
	Event string `json:"event"`
	Data  struct {
		Status string `json:"status"`
	} `json:"data"`
}

// newMonitor reads what QEMU sends on conn until the end. The caller must execute qmp_capabilities
// before any other command.
func newMonitor(conn *net.UnixConn) *monitor {
	m := &monitor{conn: conn, turn: make(chan struct{}, 1), gone: make(chan struct{}), changed: make(chan struct{})}
	go m.read() // ends with the connection
	return m
}

// close closes the connection. QEMU has no monitor afterwards.
func (m *monitor) close() {
	m.conn.Close()
	<-m.gone
}

// read takes answers and events until the connection ends or breaks the protocol.
func (m *monitor) read() {
	defer close(m.gone)
	defer m.conn.Close()
	r := bufio.NewReaderSize(m.conn, 4<<10)
	for {
		line, err := readLine(r)
		var reply qmpReply
		if err == nil {
			if err = json.Unmarshal(line, &reply); err != nil {
				err = fmt.Errorf("broken JSON: %w", err)
			}
		}
		if errors.Is(err, io.EOF) {
			err = errors.New("QEMU has ended the connection")
		}
		if err != nil {
			m.err = err
			return
		}
		m.take(reply)
	}
}

// take passes an answer on to the caller that waits for it, and records the status of a migration.
func (m *monitor) take(reply qmpReply) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case reply.Event == "MIGRATION" || reply.Event == "RESUME":
		if reply.Event == "MIGRATION" {
			m.migration = reply.Data.Status
		}
		close(m.changed)
		m.changed = make(chan struct{})
	// This is an event, or the greeting, which has neither.
	case reply.Event != "" || reply.Return == nil && reply.Error == nil:
	case m.answer != nil && reply.ID == m.last:
		m.answer <- reply
		m.answer = nil
	}
}

// execute runs one command and waits for its answer.
func (m *monitor) execute(ctx context.Context, command string, args any) error {
	_, err := m.query(ctx, command, args, nil)
	return err
}

// query runs one command, sends file with it unless file is nil, and returns the answer.
func (m *monitor) query(ctx context.Context, command string, args any, file *os.File) (json.RawMessage, error) {
	ctx, cancel := bounded(ctx, commandTimeout)
	defer cancel()
	select {
	case m.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("sending %s to QEMU: %w", command, ctx.Err())
	}
	defer func() { <-m.turn }()
	answer, err := m.send(ctx, command, args, file)
	if err != nil {
		return nil, fmt.Errorf("sending %s to QEMU: %w", command, err)
	}
	var reply qmpReply
	select {
	case reply = <-answer:
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for QEMU's answer to %s: %w", command, ctx.Err())
	case <-m.gone:
		select {
		case reply = <-answer: // the answer came first
		default:
			return nil, fmt.Errorf("waiting for QEMU's answer to %s: %w", command, m.err)
		}
	}
	if reply.Error != nil {
		return nil, fmt.Errorf("QEMU refused %s: %s", command, text.Limit(reply.Error.Desc, text.MaxError))
	}
	return reply.Return, nil
}

// send writes a command and returns the channel that receives its answer.
func (m *monitor) send(ctx context.Context, command string, args any, file *os.File) (<-chan qmpReply, error) {
	answer := make(chan qmpReply, 1)
	m.mu.Lock()
	m.last++
	m.answer = answer
	req := map[string]any{"execute": command, "id": m.last}
	m.mu.Unlock()
	if args != nil {
		req["arguments"] = args
	}
	data, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	var oob []byte
	if file != nil {
		oob = syscall.UnixRights(int(file.Fd()))
	}
	n, err := m.write(ctx, append(data, '\n'), oob)
	if err == nil {
		return answer, nil
	}
	if n > 0 {
		m.conn.Close() // half a command was sent: QEMU would not understand the next one
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return nil, err
}

// write writes until ctx ends. A stopped QEMU does not read.
func (m *monitor) write(ctx context.Context, data, oob []byte) (int, error) {
	m.conn.SetWriteDeadline(time.Time{})
	given := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(given)
		m.conn.SetWriteDeadline(time.Unix(1, 0))
	})
	n, _, err := m.conn.WriteMsgUnix(data, oob, nil)
	if !stop() {
		<-given // so that it does not affect the next command
	}
	return n, err
}

// progress returns the status of the migration, and a channel that is closed when that changes or
// the guest continues.
func (m *monitor) progress() (migration string, changed <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.migration, m.changed
}

// awaitMigration waits until the migration has ended. It returns an error if the migration failed.
func (m *monitor) awaitMigration(ctx context.Context) error {
	ctx, cancel := bounded(ctx, migrationTimeout)
	defer cancel()
	for {
		status, changed := m.progress()
		switch status {
		case "completed":
			return nil
		case "failed", "cancelled":
			return m.migrationError(ctx, status)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for QEMU's migration: %w", ctx.Err())
		case <-m.gone:
			return fmt.Errorf("waiting for QEMU's migration: %w", m.err)
		}
	}
}

func (m *monitor) migrationError(ctx context.Context, status string) error {
	var info struct {
		Why string `json:"error-desc"`
	}
	data, err := m.query(ctx, "query-migrate", nil, nil)
	if err == nil {
		err = json.Unmarshal(data, &info)
	}
	if err != nil || info.Why == "" {
		return fmt.Errorf("QEMU's migration has %s", status)
	}
	return fmt.Errorf("QEMU's migration has %s: %s", status, text.Limit(info.Why, text.MaxError))
}

func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > maxQMPLine {
			return nil, errors.New("line too long")
		}
		if err != bufio.ErrBufferFull {
			return line, err
		}
	}
}
