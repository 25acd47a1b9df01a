package output

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"banger"
	"banger/internal/frame"
	"banger/internal/guest"
)

// patience bounds every wait. Only a failing wait takes nearly as long.
const patience = time.Minute

// host returns a client whose requests log answers, as the agent does.
func host(t *testing.T, log *Log) guest.Client {
	return guest.Client{Dial: func(context.Context) (net.Conn, error) {
		near, far := net.Pipe()
		near.SetDeadline(time.Now().Add(patience))
		t.Cleanup(func() { near.Close() })
		go func() { // ends with near
			defer far.Close()
			frames := frame.NewReader(far)
			if _, _, err := frames.Next(); err != nil {
				return
			}
			if err := log.Send(far, frames, 0); err != nil {
				frame.WriteJSON(far, frame.Error, &banger.Error{Code: banger.CodeOf(err), Message: err.Error()})
			}
		}()
		return near, nil
	}}
}

// request opens a stream that asks for the output from a position on.
func request(t *testing.T, log *Log, position uint64) (net.Conn, *frame.Reader) {
	t.Helper()
	near, far := net.Pipe()
	near.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { near.Close() })
	go func() { // ends with near
		defer far.Close()
		if err := log.Send(far, frame.NewReader(far), position); err != nil {
			frame.WriteJSON(far, frame.Error, &banger.Error{Code: banger.CodeOf(err), Message: err.Error()})
		}
	}()
	return near, frame.NewReader(near)
}

// startRecord runs Record for what is written to w, and returns its result.
func startRecord(log *Log, stream frame.Type) (w *io.PipeWriter, result chan error) {
	r, w := io.Pipe()
	result = make(chan error, 1)
	go func() { result <- log.Record(stream, r) }() // ends with w
	return w, result
}

func write(t *testing.T, w io.Writer, data string) {
	t.Helper()
	if _, err := io.WriteString(w, data); err != nil {
		t.Fatal(err)
	}
}

// next returns the data of the next record.
func next(t *testing.T, frames *frame.Reader) string {
	t.Helper()
	typ, p, err := frames.Next()
	if err != nil || typ != frame.Stdout {
		t.Fatalf("frame %d comes, %q, %v", typ, p, err)
	}
	return string(p[guest.RecordHeader:])
}

func taken(t *testing.T, conn net.Conn, position uint64) {
	t.Helper()
	if err := frame.Write(conn, frame.Taken, guest.PutTaken(nil, position)); err != nil {
		t.Fatal(err)
	}
}

// TestAWriterWaitsForTheHost fills the log, in small records and in large ones. Nothing of it is lost when the host
// comes.
func TestAWriterWaitsForTheHost(t *testing.T) {
	for name, size := range map[string]int{"small records": 1, "large records": 3 * largeRead} {
		t.Run(name, func(t *testing.T) {
			log := New()
			all := strings.Repeat("0123456789abcdef", 4*maxKept/16)
			if size == 1 {
				all = all[:3*maxKept/recordCost]
			}
			r, w := io.Pipe()
			result, left := make(chan error, 1), make(chan struct{})
			go func() { result <- log.Record(frame.Stdout, r) }()
			go func() { // ends when all is read
				defer close(left)
				for i := 0; i < len(all); i += size {
					io.WriteString(w, all[i:min(i+size, len(all))])
				}
				w.Close()
			}()
			for full := false; !full; {
				log.mu.Lock()
				full = log.kept >= maxKept
				kept, changed := log.kept, log.changed
				log.mu.Unlock()
				if full && kept > maxKept+2*largeRead {
					t.Fatalf("%d bytes are kept", kept)
				}
				if !full {
					select {
					case <-changed:
					case <-time.After(patience):
						t.Fatal("the log does not fill")
					}
				}
			}
			select {
			case <-left:
				t.Fatal("the writer does not wait")
			default:
			}
			var got bytes.Buffer
			ended := make(chan error, 1)
			go func() {
				ended <- host(t, log).Output(t.Context(), 0, func(r guest.Record) { got.Write(r.Data) })
			}()
			<-left
			if err := <-result; err != nil {
				t.Fatal(err)
			}
			select {
			case <-log.Delivered():
				t.Error("an open log is delivered")
			default:
			}
			log.Close()
			log.Close() // closing again changes nothing
			if err := <-ended; err != nil || got.String() != all {
				t.Errorf("the host gets %d bytes of %d, %v", got.Len(), len(all), err)
			}
			<-log.Delivered()
		})
	}
}

// TestALaterRequestGoesOnWhereTheFirstWas, and takes the first one's place. What the first says then has no effect.
func TestALaterRequestGoesOnWhereTheFirstWas(t *testing.T) {
	log := New()
	w, _ := startRecord(log, frame.Stdout)
	defer w.Close()
	first, frames := request(t, log, 0)
	for _, data := range []string{"one", "two"} {
		write(t, w, data)
		if got := next(t, frames); got != data {
			t.Errorf("%q comes, not %q", got, data)
		}
	}
	taken(t, first, 3)
	for late := time.After(patience); ; {
		log.mu.Lock()
		done, changed := log.records[0].at == 3, log.changed
		log.mu.Unlock()
		if done {
			break
		}
		select {
		case <-changed:
		case <-late:
			t.Fatal("the first record stays")
		}
	}
	second, frames := request(t, log, 3)
	if got := next(t, frames); got != "two" {
		t.Errorf("%q comes again", got)
	}
	if _, err := first.Write([]byte{0}); err == nil {
		t.Error("the first stream is still open")
	}
	taken(t, second, 1000) // more than was sent
	write(t, w, "three")
	if got := next(t, frames); got != "three" {
		t.Errorf("%q comes", got)
	}
	second.Close()
	third, frames := request(t, log, 3) // nothing but "one" was taken
	if got := next(t, frames) + next(t, frames); got != "twothree" {
		t.Errorf("%q comes", got)
	}
	third.Close()
	for _, position := range []uint64{0, 2, 4, 12} {
		_, frames := request(t, log, position)
		if typ, p, err := frames.Next(); err != nil || typ != frame.Error {
			t.Errorf("position %d is answered %d, %q, %v", position, typ, p, err)
		}
	}
}

// TestAnEmptyLogIsDelivered at once, and its end is sent.
func TestAnEmptyLogIsDelivered(t *testing.T) {
	log := New()
	log.Close()
	<-log.Delivered()
	_, frames := request(t, log, 0)
	if typ, _, err := frames.Next(); err != nil || typ != frame.Exit {
		t.Errorf("frame %d comes, %v", typ, err)
	}
}
