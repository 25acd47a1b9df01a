package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"
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
}

type qmpReply struct {
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
	Event string `json:"event"`
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
	m.setDeadline(ctx)
	req := map[string]any{"execute": command}
	if args != nil {
		req["arguments"] = args
	}
	if err := json.NewEncoder(m.conn).Encode(req); err != nil {
		return fmt.Errorf("sending %s to QEMU: %w", command, orEnd(ctx, err))
	}
	for {
		line, err := m.line()
		if err != nil {
			return fmt.Errorf("waiting for QEMU's answer to %s: %w", command, orEnd(ctx, err))
		}
		var reply qmpReply
		if err := json.Unmarshal(line, &reply); err != nil {
			return fmt.Errorf("QEMU answered %s with broken JSON: %w", command, err)
		}
		switch {
		case reply.Event != "":
		case reply.Error != nil:
			return fmt.Errorf("QEMU refused %s: %s", command, reply.Error.Desc)
		default:
			return nil
		}
	}
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
