package stream

import (
	"context"
	"io"
	"sync"
	"syscall"

	"banger"
	"banger/internal/agent/command"
	"banger/internal/agent/console"
	"banger/internal/frame"
)

// smallOutput is the size in bytes of the first buffer for a command's output: most commands say little, and hundreds
// may run.
const smallOutput = 4 << 10

// maxHead is the most that a caller of Pieces may want before the data, in bytes.
const maxHead = 64

var largeOutputs = sync.Pool{New: func() any {
	b := make([]byte, maxHead+frame.MaxData)
	return &b
}}

// Pieces calls take with each piece of what a command says on out, until that ends. Before the data, buf has head bytes
// for the caller, at most maxHead. buf is valid during the call, and has at most head+frame.MaxData bytes.
func Pieces(out io.Reader, head int, take func(buf []byte)) {
	small := make([]byte, head+smallOutput)
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
			buf = (*large)[:head+frame.MaxData]
		}
		n, err := out.Read(buf[head:])
		if n > 0 {
			take(buf[:head+n])
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

// Each calls take with stdout and stderr, as readers, at the same time. It returns when the command and both calls have
// ended.
func Each(p *command.Process, take func(io.Reader, frame.Type)) {
	drained := make(chan struct{})
	go func() { // ends with the pipes, which AwaitEnd ends at the latest
		defer close(drained)
		var wg sync.WaitGroup
		wg.Go(func() { take(p.Stdout(), frame.Stdout) })
		if stderr := p.Stderr(); stderr != nil {
			wg.Go(func() { take(stderr, frame.Stderr) })
		}
		wg.Wait()
	}()
	p.AwaitEnd(drained)
}

// maxSaid is how much Try keeps of what a command says, in bytes.
const maxSaid = 512

// Try starts a command that ends soon, and returns how it ended and the beginning of what it said. It kills the command
// when ctx ends.
func Try(ctx context.Context, start func(*banger.Exec, command.Options) (*command.Process, error), e banger.Exec) (
	banger.Exit, string, error) {
	p, err := start(&e, command.Options{})
	if err != nil {
		return banger.Exit{}, "", err
	}
	defer p.Close()
	stop := context.AfterFunc(ctx, func() { p.Signal(syscall.SIGKILL) })
	defer stop()
	var mu sync.Mutex
	var said []byte
	Each(p, func(out io.Reader, _ frame.Type) {
		Pieces(out, 0, func(buf []byte) {
			mu.Lock()
			defer mu.Unlock()
			said = append(said, buf[:min(len(buf), maxSaid-len(said))]...)
		})
	})
	return p.Exit(), string(said), nil
}
