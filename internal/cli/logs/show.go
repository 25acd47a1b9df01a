package logs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"banger"
	"banger/internal/api/client"
	"banger/internal/cli/command"
	"banger/internal/cli/render"
	"banger/internal/frame"
)

// show is one run of the command.
type show struct {
	*command.App
	options
	view    banger.LogView
	cursors *cursors   // nil without a file
	mu      sync.Mutex // serialises lines of several outputs
}

// one shows the output of one VM.
func (s *show) one(ctx context.Context, client *client.Client, ref string) error {
	src := s.source(client, ref, "")
	if s.cursor != "" {
		vm, err := client.Get(ctx, ref)
		if err != nil {
			return err
		}
		src = s.source(client, ref, vm.ID)
	}
	if !s.times {
		return s.output(ctx, src, newRaw(s.Stdout), newRaw(s.Stderr))
	}
	stream := func(w io.Writer) *lines { return &lines{mu: &s.mu, w: w, times: true, alone: true} }
	return s.output(ctx, src, stream(s.Stdout), stream(s.Stderr))
}

// several shows the outputs of several VMs: one after the other or, if it follows them, at the same time. A failure of
// one VM does not end the others.
func (s *show) several(ctx context.Context, client *client.Client, refs []string) error {
	sources, failed, width := []source{}, false, 0
	known := map[string]bool{}
	for _, ref := range refs {
		vm, err := client.Get(ctx, ref)
		switch {
		case err != nil:
			failed = true
			render.Error(s.Stderr, err)
		case !known[vm.ID]:
			known[vm.ID] = true
			sources = append(sources, s.source(client, vm.Name, vm.ID))
			width = max(width, len(vm.Name))
		}
	}
	var wg sync.WaitGroup
	errs := make([]error, len(sources))
	for i, src := range sources {
		stream := func(w io.Writer) *lines {
			return &lines{mu: &s.mu, w: w, name: fmt.Sprintf("%-*s | ", width, src.vm), times: s.times}
		}
		wg.Go(func() {
			if errs[i] = s.output(ctx, src, stream(s.Stdout), stream(s.Stderr)); errs[i] != nil {
				s.say("%s: %w", src.vm, errs[i])
			}
		})
		if !s.follow {
			wg.Wait()
		}
	}
	wg.Wait()
	if failed || errors.Join(errs...) != nil {
		return &command.ExitError{Code: command.ExitFailed}
	}
	return nil
}

// say prints a line on stderr.
func (s *show) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	render.Error(s.Stderr, fmt.Errorf(format, args...))
}

// output shows an output until it ends. The end of ctx is no error.
func (s *show) output(ctx context.Context, src source, stdout, stderr stream) error {
	view := s.view
	position, again := s.cursors.of(src.key)
	view.Position = position
	r, apart, err := src.open(ctx, view)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	defer r.Close()
	switch {
	case apart:
		err = s.frames(src, view, again, r, stdout, stderr)
	case s.needsStamps(view):
		return banger.Errorf(banger.CodeInvalid, "the output of VM %s is on its console, which has no times and no "+
			"positions", src.vm).WithHint("leave out -t, --since, --until and --cursor")
	default:
		_, err = io.Copy(writer{stdout}, r)
	}
	err = errors.Join(err, stdout.flush(), stderr.flush())
	switch {
	case ctx.Err() != nil:
		return nil
	case errors.Is(err, io.ErrUnexpectedEOF):
		return banger.Errorf(banger.CodeUnavailable, "the output of VM %s was cut off: the daemon has ended", src.vm).
			WithHint("VMs go on running; see it again: banger logs %s", src.vm)
	}
	return err
}

// writer is a stream without times.
type writer struct{ stream }

func (w writer) Write(p []byte) (int, error) { return len(p), w.write(p, time.Time{}) }

// frames shows the frames of an output, and keeps its cursor. again says that view has the position of a cursor.
func (s *show) frames(src source, view banger.LogView, again bool, r io.Reader, stdout, stderr stream) error {
	frames := frame.NewReader(r)
	both := &streams{out: holder{stream: stdout}, err: holder{stream: stderr}}
	place := place{next: view.Position, whole: view.Since.IsZero() && view.Until.IsZero()}
	place.known = again && place.whole && view.Tail < 0
	said := false
	for {
		t, p, err := frames.Next()
		switch {
		case err != nil:
			if failed := both.flush(); failed != nil {
				return failed
			}
			if place.passed {
				s.cursors.set(src.key, place.next)
			}
			if err == io.EOF {
				return nil
			}
			return err
		case t == frame.Stamp:
			if note := place.move(p); note != "" {
				err = both.flush()
				s.say(note, src.vm)
			}
		case t == frame.Stdout || t == frame.Stderr:
			if !place.stamped && !said && s.needsStamps(view) {
				said = true
				s.say("all of %s's output comes, without times and positions, because an earlier banger runs the VM (start "+
					"it again: banger restart %[1]s)", src.vm)
			}
			err = both.write(t, p, place)
			if place.pass(len(p)) && err == nil {
				s.cursors.set(src.key, both.upTo(place.next))
			}
		}
		if err != nil {
			return err
		}
	}
}

// place is where a reader is in an output.
type place struct {
	next    uint64    // the position that comes next
	known   bool      // next is known
	whole   bool      // no times are left out, so that each position should come
	stamped bool      // the next data has a stamp
	passed  bool      // the last data had a stamp
	at      time.Time // of the next data; zero if it has no stamp
}

// move takes the stamp of the next data. It returns what a user should know, with a %s for the VM, if that is not what
// should come.
func (p *place) move(stamp []byte) (note string) {
	position, at, ok := frame.ParseStamp(stamp)
	if !ok {
		return ""
	}
	switch {
	case !p.known || position == p.next:
	case position > p.next:
		note = fmt.Sprintf("%d bytes of %%s's output are gone", position-p.next)
	default:
		note = "%s's output was counted anew, and all of it follows"
	}
	p.next, p.known, p.stamped, p.at = position, p.whole, true, at
	return note
}

// pass says that n bytes of data were shown. It reports whether they had a stamp.
func (p *place) pass(n int) bool {
	p.passed = p.stamped
	p.next, p.stamped, p.at = p.next+uint64(n), false, time.Time{}
	return p.passed
}
