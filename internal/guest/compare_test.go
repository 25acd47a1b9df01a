package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"banger"
	"banger/internal/frame"
)

// comparing is an agent that answers a comparison with say.
func comparing(say func(w io.Writer)) Client {
	return Client{Dial: func(context.Context) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() { // ends with the answer
			defer theirs.Close()
			if _, _, err := frame.NewReader(theirs).Next(); err == nil {
				say(theirs)
			}
		}()
		return ours, nil
	}}
}

func change(w io.Writer, path string) {
	frame.WriteJSON(w, frame.Response, banger.FileChange{Path: path, Change: banger.FileAdded})
}

// TestAComparison: each file comes with the whole of its patch, which may have several frames.
func TestAComparison(t *testing.T) {
	agent := comparing(func(w io.Writer) {
		change(w, "/a")
		change(w, "/b")
		frame.Write(w, frame.Stdout, []byte("one "))
		frame.Write(w, frame.Stdout, []byte("two"))
		change(w, "/c")
		frame.WriteJSON(w, frame.Exit, struct{}{})
	})
	got := ""
	err := agent.Compare(t.Context(), true, func(c banger.FileChange) error {
		got += fmt.Sprintf("%s %q\n", c.Path, c.Patch)
		return nil
	})
	if want := "/a \"\"\n/b \"one two\"\n/c \"\"\n"; got != want || err != nil {
		t.Errorf("it is %q, %v", got, err)
	}
	own := errors.New("the reader is gone")
	if err := agent.Compare(t.Context(), true, func(banger.FileChange) error { return own }); !errors.Is(err, own) {
		t.Errorf("an error of the reader becomes %v", err)
	}
}

// TestAnAgentThatLiesAboutFiles gets an error at the first frame that cannot be true.
func TestAnAgentThatLiesAboutFiles(t *testing.T) {
	raw := func(kind frame.Type, text string) func(io.Writer) {
		return func(w io.Writer) { frame.Write(w, kind, []byte(text)) }
	}
	for name, c := range map[string]struct {
		lie     func(io.Writer)
		message string
	}{
		"no path":           {raw(frame.Response, `{"change":"added"}`), "no comparison"},
		"a relative path":   {raw(frame.Response, `{"path":"x","change":"added"}`), "no comparison"},
		"an unknown change": {raw(frame.Response, `{"path":"/x","change":"\u001b[31m"}`), "no comparison"},
		"an unknown difference": {raw(frame.Response, `{"path":"/x","change":"changed","differs":["smell"]}`),
			"no comparison"},
		"a long path": {raw(frame.Response, `{"change":"added","path":"/`+strings.Repeat("x", maxComparedPath)+`"}`),
			"no comparison"},
		"a patch in the frame":   {raw(frame.Response, `{"path":"/x","change":"added","patch":"x"}`), "no comparison"},
		"no JSON":                {raw(frame.Response, "{"), "is broken"},
		"a patch of no file":     {raw(frame.Stdout, "x"), "frame 8"},
		"another frame":          {raw(frame.Stderr, "x"), "frame 9"},
		"an end without a word":  {func(io.Writer) {}, "did not send the whole"},
		"an error that is none":  {raw(frame.Error, "{"), "broken error"},
		"a patch without an end": {func(w io.Writer) { change(w, "/x"); endlessly(w) }, "frame 8 of 262144 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			err := comparing(c.lie).Compare(t.Context(), true, func(c banger.FileChange) error { return nil })
			if banger.CodeOf(err) != banger.CodeGuest || !strings.Contains(err.Error(), c.message) {
				t.Errorf("the error is %v (%s)", err, banger.CodeOf(err))
			}
		})
	}
}

// endlessly writes output until nobody reads.
func endlessly(w io.Writer) {
	data := make([]byte, frame.MaxData)
	for frame.Write(w, frame.Stdout, data) == nil {
	}
}

// TestWhatAnAgentSaysOfAFileIsBounded checks the texts that are not paths.
func TestWhatAnAgentSaysOfAFileIsBounded(t *testing.T) {
	agent := comparing(func(w io.Writer) {
		frame.WriteJSON(w, frame.Response, banger.FileChange{Path: "/x", Change: banger.FileChanged,
			Note: strings.Repeat("\x1b", 9999), After: &banger.FileState{Device: strings.Repeat("\x1b", 9999)}})
		frame.WriteJSON(w, frame.Exit, struct{}{})
	})
	err := agent.Compare(t.Context(), true, func(c banger.FileChange) error {
		if n := len(c.Note) + len(c.After.Device); n > 3*maxNote || strings.Contains(c.Note+c.After.Device, "\x1b") {
			t.Errorf("it is %q, %q", c.Note, c.After.Device)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestASilentComparisonEndsWithItsContext, which alone says how long it may take.
func TestASilentComparisonEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		agent := comparing(func(io.Writer) { <-hold })
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		err := agent.Compare(ctx, false, func(banger.FileChange) error { return nil })
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it is %v", err)
		}
		close(hold)
	})
}
