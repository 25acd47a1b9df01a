package client_test

import (
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"banger"
	"banger/internal/api/client"
	"banger/internal/frame"
	"banger/internal/testing/apitest"
	"banger/internal/testing/hosttest"
)

// piece is one frame of an output, with its stamp.
type piece struct {
	position uint64
	at       time.Time
	text     string
}

// pieces reads an output with stamps.
func pieces(t *testing.T, r io.ReadCloser) (list []piece) {
	t.Helper()
	defer r.Close()
	frames := frame.NewReader(r)
	var next piece
	for {
		typ, p, err := frames.Next()
		if err == io.EOF {
			return list
		}
		hosttest.Check(t, err)
		if typ != frame.Stamp {
			next.text = string(p)
			list = append(list, next)
			continue
		}
		var ok bool
		if next.position, next.at, ok = frame.ParseStamp(p); !ok {
			t.Fatalf("a stamp of %d bytes", len(p))
		}
	}
}

// TestAViewOfAnOutput reads the output by time and by position, of a VM that runs and of its shim, which is followed.
func TestAViewOfAnOutput(t *testing.T) {
	t.Parallel()
	w, ctx := newWorld(t), t.Context()
	spec := w.spec("box")
	spec.Cmd = []string{"sh", "-c", "echo one; exec sleep 1000"}
	began := time.Now().Add(-time.Minute)
	ok[banger.VM](t)(w.Create(ctx, spec, nil, true, banger.Discard))
	see := func(v banger.LogView) []piece {
		t.Helper()
		v.Stamps = true
		r, apart, err := w.Output(ctx, "box", v)
		if hosttest.Check(t, err); !apart {
			t.Fatal("the output is the console's")
		}
		return pieces(t, r)
	}
	var all []piece
	w.h.Await("the output is there", func() bool {
		all = see(banger.LogView{Tail: -1, Since: began})
		return len(all) > 0
	})
	if all[0].position != 0 || all[0].text != "one\n" || all[0].at.Before(began) || all[0].at.After(time.Now()) {
		t.Errorf("it begins with %+v", all[0])
	}
	for name, c := range map[string]struct {
		view banger.LogView
		want string
	}{
		"since its time":  {banger.LogView{Tail: -1, Since: all[0].at}, "one\n"},
		"since later":     {banger.LogView{Tail: -1, Since: all[0].at.Add(time.Hour)}, ""},
		"until before":    {banger.LogView{Tail: -1, Until: all[0].at.Add(-1)}, ""},
		"from a position": {banger.LogView{Tail: -1, Position: 2}, "e\n"},
		"followed":        {banger.LogView{Tail: -1, Position: 2, Until: all[0].at, Follow: true}, "e\n"},
	} {
		want := []piece{{c.view.Position, all[0].at, c.want}}
		if c.want == "" {
			want = nil
		}
		if got := see(c.view); !slices.Equal(got, want) {
			t.Errorf("%s it has %+v, not %+v", name, got, want)
		}
	}
}

// TestAViewInARequest shows what the client asks for. A daemon of an earlier banger does not know all of it.
func TestAViewInARequest(t *testing.T) {
	t.Parallel()
	var asked string
	c := client.New(apitest.Serve(t, func(_ http.ResponseWriter, r *http.Request) { asked = r.URL.RawQuery }))
	at := time.Date(2026, 11, 29, 18, 30, 0, 5, time.FixedZone("", 3600))
	for want, v := range map[string]banger.LogView{
		"follow=false&output=true":       {Tail: -1},
		"follow=true&output=true&tail=0": {Follow: true},
		"follow=false&output=true&position=7&since=2026-11-29T17%3A30%3A00.000000005Z&stamps=true&tail=3&" +
			"until=2026-11-29T17%3A30%3A01.000000005Z": {Tail: 3, Since: at,
			Until: at.Add(time.Second), Position: 7, Stamps: true},
	} {
		r, apart, err := c.Output(t.Context(), "box", v)
		if hosttest.Check(t, err); apart || asked != want {
			t.Errorf("%+v becomes %q", v, asked)
		}
		r.Close()
	}
}
