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

// maxQMPLine bounds one line from QEMU, which a hostile guest may control in
// the worst case.
const maxQMPLine = 1 << 20

// What bounds a command and a migration whose caller sets no deadline.
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

// monitor is the one connection to QEMU's machine protocol (docs/interop/qmp-spec), held as
// long as QEMU lives: newline JSON, one command at a time. An answer bears the number of its
// command, so that one which comes late is nobody else's.
type monitor struct {
	conn *net.UnixConn
	turn chan struct{} // has room for the one whose turn it is
	gone chan struct{} // closed when nothing more is read; err is why
	err  error

	mu        sync.Mutex
	last      int           // the number of the last command
	answer    chan qmpReply // takes its answer; has room
	migration string        // the last status that was told, with the capability "events"
	changed   chan struct{} // closed and replaced when migration changes, or the guest goes on
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

// newMonitor reads what QEMU says on conn until its end. Before anything else the caller has
// it execute qmp_capabilities.
func newMonitor(conn *net.UnixConn) *monitor {
	m := &monitor{conn: conn, turn: make(chan struct{}, 1), gone: make(chan struct{}), changed: make(chan struct{})}
	go m.read() // ends with the connection
	return m
}

// close ends the connection, and QEMU has no monitor any more.
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

// take passes an answer on to who waits for it, and remembers how a migration goes.
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
	case reply.Event != "" || reply.Return == nil && reply.Error == nil: // the greeting has neither
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

// query runs one command, hands it file unless that is nil, and returns its answer.
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
		case reply = <-answer: // it came first
		default:
			return nil, fmt.Errorf("waiting for QEMU's answer to %s: %w", command, m.err)
		}
	}
	if reply.Error != nil {
		return nil, fmt.Errorf("QEMU refused %s: %s", command, text.Limit(reply.Error.Desc, text.MaxError))
	}
	return reply.Return, nil
}

// send writes a command and returns what takes its answer.
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
		m.conn.Close() // of half a command: the next one would not be understood
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return nil, err
}

// write writes until ctx ends. A QEMU that is stopped reads nothing.
func (m *monitor) write(ctx context.Context, data, oob []byte) (int, error) {
	m.conn.SetWriteDeadline(time.Time{})
	given := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(given)
		m.conn.SetWriteDeadline(time.Unix(1, 0))
	})
	n, _, err := m.conn.WriteMsgUnix(data, oob, nil)
	if !stop() {
		<-given // so that it does not meet the next command
	}
	return n, err
}

// beginMigration forgets how an earlier migration went.
func (m *monitor) beginMigration() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.migration = ""
}

// progress returns how a migration goes, and what is closed when that changes or the guest
// goes on.
func (m *monitor) progress() (migration string, changed <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.migration, m.changed
}

// awaitMigration waits until a migration that was begun has ended, and says how.
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
