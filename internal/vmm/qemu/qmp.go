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
}

type qmpReply struct {
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
	Event string `json:"event"`
}

// dialMonitor connects and negotiates. The caller closes it.
func dialMonitor(ctx context.Context, path string) (*monitor, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	m := &monitor{conn: conn, r: bufio.NewReaderSize(conn, 64<<10)}
	m.setDeadline(ctx)
	if _, err := m.line(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("reading QEMU's greeting: %w", err)
	}
	if err := m.execute(ctx, "qmp_capabilities", nil); err != nil {
		conn.Close()
		return nil, err
	}
	return m, nil
}

func (m *monitor) close() { m.conn.Close() }

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
		return fmt.Errorf("sending %s to QEMU: %w", command, err)
	}
	for {
		line, err := m.line()
		if err != nil {
			return fmt.Errorf("waiting for QEMU's answer to %s: %w", command, err)
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
