package guest

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/frame"
)

// recordFrame writes a frame of output.
func recordFrame(w io.Writer, t frame.Type, position uint64, data string) error {
	p := make([]byte, RecordHeader, RecordHeader+len(data))
	PutRecordHeader(p, position, time.Unix(5, 6))
	return frame.Write(w, t, append(p, data...))
}

// answering returns a client whose agent answers each request by answer.
func answering(t *testing.T, answer func(agent net.Conn, frames *frame.Reader)) Client {
	return Client{Dial: func(context.Context) (net.Conn, error) {
		host, agent := net.Pipe()
		go func() { // ends with host
			defer agent.Close()
			frames := frame.NewReader(agent)
			if _, _, err := frames.Next(); err == nil {
				answer(agent, frames)
			}
		}()
		t.Cleanup(func() { host.Close() })
		return host, nil
	}}
}

// TestOutputIsTakenAndSaidSo checks records, and that the agent learns at the latest at the end what was taken.
func TestOutputIsTakenAndSaidSo(t *testing.T) {
	said := make(chan uint64, 1)
	c := answering(t, func(agent net.Conn, frames *frame.Reader) {
		recordFrame(agent, frame.Stdout, 7, "out")
		recordFrame(agent, frame.Stderr, 10, "err")
		frame.Write(agent, frame.Exit, nil)
		typ, p, err := frames.Next()
		if position, ok := Taken(p); ok && typ == frame.Taken && err == nil {
			said <- position
		}
		close(said)
	})
	var got strings.Builder
	err := c.Output(t.Context(), 7, func(r Record) {
		if !r.Time.Equal(time.Unix(5, 6)) || (r.Stream == frame.Stderr) != (r.Position == 10) {
			t.Errorf("a record is %+v", r)
		}
		got.Write(r.Data)
	})
	if position := <-said; err != nil || got.String() != "outerr" || position != 13 {
		t.Errorf("taken is %q up to %d, %v", &got, position, err)
	}
}

// TestHostileOutput checks that what is no record in its place is an error, and is not taken.
func TestHostileOutput(t *testing.T) {
	for name, answer := range map[string]func(agent io.Writer){
		"a gap":        func(w io.Writer) { recordFrame(w, frame.Stdout, 8, "x") },
		"a repetition": func(w io.Writer) { recordFrame(w, frame.Stdout, 6, "x") },
		"no data":      func(w io.Writer) { recordFrame(w, frame.Stdout, 7, "") },
		"much data":    func(w io.Writer) { recordFrame(w, frame.Stdout, 7, strings.Repeat("x", frame.MaxData+1)) },
		"no header":    func(w io.Writer) { frame.Write(w, frame.Stdout, []byte("x")) },
		"other frames": func(w io.Writer) { recordFrame(w, frame.Stdin, 7, "x") },
		"a refusal":    func(w io.Writer) { frame.WriteJSON(w, frame.Error, banger.Error{Message: "no"}) },
		"an end":       func(w io.Writer) {},
	} {
		c := answering(t, func(agent net.Conn, _ *frame.Reader) { answer(agent) })
		err := c.Output(t.Context(), 7, func(r Record) { t.Errorf("%s: %d bytes are taken", name, len(r.Data)) })
		if err == nil {
			t.Errorf("%s is no error", name)
		}
	}
}
