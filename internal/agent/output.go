package agent

import (
	"io"
	"sync"

	"banger/internal/agent/console"
	"banger/internal/frame"
)

// smallOutput is the size in bytes of the first buffer for a command's output:
// most commands say little, and hundreds may run.
const smallOutput = 4 << 10

var largeOutputs = sync.Pool{New: func() any {
	b := make([]byte, frame.Header+frame.MaxData)
	return &b
}}

// copyFrom sends what the command says on out, until that ends.
func (x *execution) copyFrom(out io.Reader, t frame.Type) {
	small := make([]byte, frame.Header+smallOutput)
	var large *[]byte // from the pool, for a command that says much
	giveBack := func() {
		if large != nil {
			largeOutputs.Put(large)
			large = nil
		}
	}
	defer giveBack()
	for {
		buf := small
		if large != nil {
			buf = *large
		}
		n, err := out.Read(buf[frame.Header:])
		if n > 0 {
			x.send(buf[:frame.Header+n], t)
		}
		switch {
		case large == nil && n == smallOutput:
			large = largeOutputs.Get().(*[]byte)
		case large != nil && n < smallOutput:
			giveBack()
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			console.Warn(err)
			return
		}
	}
}
