package kubelet

import (
	"bytes"
	"errors"
	"io"
	"time"

	"banger/internal/frame"
)

// lines writes recorded output as text. With times, each line begins with the time at which it came.
func lines(in io.Reader, out io.Writer, times bool) error {
	frames := frame.NewReader(in)
	begins, stamp := true, ""
	for {
		t, p, err := frames.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case t == frame.Stamp:
			if _, at, ok := frame.ParseStamp(p); ok {
				stamp = at.UTC().Format(time.RFC3339Nano) + " "
			}
			continue
		case t != frame.Stdout && t != frame.Stderr:
			continue
		case !times:
			if _, err := out.Write(p); err != nil {
				return err
			}
			continue
		}
		for len(p) > 0 {
			line := p
			if i := bytes.IndexByte(p, '\n'); i >= 0 {
				line = p[:i+1]
			}
			if begins {
				line = append([]byte(stamp), line...)
			}
			if _, err := out.Write(line); err != nil {
				return err
			}
			begins = line[len(line)-1] == '\n'
			if i := bytes.IndexByte(p, '\n'); i >= 0 {
				p = p[i+1:]
			} else {
				p = nil
			}
		}
	}
}
