package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"banger/internal/text"
)

// maxQMPLine bounds one line from QEMU, which a hostile guest may control in
// the worst case.
const maxQMPLine = 1 << 20

// monitor is a connection to QEMU's machine protocol (docs/interop/qmp-spec):
// newline JSON, one command at a time; events between answers are skipped.
type monitor struct {
	conn net.Conn
	r    *bufio.Reader
	stop func() bool // undoes the bond to the context

	migration string // the last status that was told, with the capability "events"
}

type qmpReply struct {
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

// dialMonitor connects and negotiates; the connection ends with ctx. The caller
// closes it.
func dialMonitor(ctx context.Context, path string) (*monitor, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	m := &monitor{conn: conn, r: bufio.NewReaderSize(conn, 64<<10)}
	m.stop = context.AfterFunc(ctx, func() { conn.Close() })
	m.setDeadline(ctx)
	if _, err := m.line(); err != nil {
		m.close()
		return nil, fmt.Errorf("reading QEMU's greeting: %w", orEnd(ctx, err))
	}
	if err := m.execute(ctx, "qmp_capabilities", nil); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

func (m *monitor) close() {
	m.stop()
	m.conn.Close()
}

// orEnd returns why ctx ended, if it did, instead of what that did to a connection.
func orEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (m *monitor) setDeadline(ctx context.Context) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(10 * time.Second)
	}
	m.conn.SetDeadline(deadline)
}

// execute runs one command and waits for its answer.
func (m *monitor) execute(ctx context.Context, command string, args any) error {
	_, err := m.query(ctx, command, args, nil)
	return err
}

// query runs one command, hands it file unless that is nil, and returns its answer.
func (m *monitor) query(ctx context.Context, command string, args any, file *os.File) (json.RawMessage, error) {
	m.setDeadline(ctx)
	req := map[string]any{"execute": command}
	if args != nil {
		req["arguments"] = args
	}
	if err := m.send(req, file); err != nil {
		return nil, fmt.Errorf("sending %s to QEMU: %w", command, orEnd(ctx, err))
	}
	for {
		reply, err := m.next()
		switch {
		case err != nil:
			return nil, fmt.Errorf("waiting for QEMU's answer to %s: %w", command, orEnd(ctx, err))
		case reply.Event != "":
		case reply.Error != nil:
			return nil, fmt.Errorf("QEMU refused %s: %s", command, text.Limit(reply.Error.Desc, text.MaxError))
		default:
			return reply.Return, nil
		}
	}
}

func (m *monitor) send(req any, file *os.File) error {
	data, err := json.Marshal(req)
	if err != nil || file == nil {
		if err == nil {
			_, err = m.conn.Write(append(data, '\n'))
		}
		return err
	}
	_, _, err = m.conn.(*net.UnixConn).WriteMsgUnix(append(data, '\n'), syscall.UnixRights(int(file.Fd())), nil)
	return err
}

// next reads an answer or an event.
func (m *monitor) next() (reply qmpReply, err error) {
	line, err := m.line()
	if err == nil {
		if err = json.Unmarshal(line, &reply); err != nil {
			err = fmt.Errorf("broken JSON: %w", err)
		}
	}
	if reply.Event == "MIGRATION" {
		m.migration = reply.Data.Status
	}
	return reply, err
}

// awaitMigration waits until a migration that was begun has ended, and says how.
func (m *monitor) awaitMigration(ctx context.Context) error {
	m.setDeadline(ctx)
	for m.migration != "completed" {
		if m.migration == "failed" || m.migration == "cancelled" {
			return m.migrationError(ctx)
		}
		if _, err := m.next(); err != nil {
			return fmt.Errorf("waiting for QEMU's migration: %w", orEnd(ctx, err))
		}
	}
	return nil
}

func (m *monitor) migrationError(ctx context.Context) error {
	var info struct {
		Why string `json:"error-desc"`
	}
	data, err := m.query(ctx, "query-migrate", nil, nil)
	if err == nil {
		err = json.Unmarshal(data, &info)
	}
	if err != nil || info.Why == "" {
		return fmt.Errorf("QEMU's migration has %s", m.migration)
	}
	return fmt.Errorf("QEMU's migration has %s: %s", m.migration, text.Limit(info.Why, text.MaxError))
}

func (m *monitor) line() ([]byte, error) {
	var line []byte
	for {
		part, err := m.r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > maxQMPLine {
			return nil, errors.New("line too long")
		}
		if err != bufio.ErrBufferFull {
			return line, err
		}
	}
}
