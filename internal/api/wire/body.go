package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"time"
	"unicode/utf8"

	"banger"
)

// body is a request's body with a deadline for each next part. The HTTP server reads and drops what a handler leaves
// unread before it sends the answer. Therefore the deadline stays until the body has ended.
type body struct {
	io.ReadCloser
	conn *http.ResponseController
	time time.Duration
}

// Patiently returns the body of req, limited to limit bytes, with a deadline that starts now. It returns an empty
// body unchanged.
func Patiently(w http.ResponseWriter, req *http.Request, limit int64, time time.Duration) io.ReadCloser {
	if req.ContentLength == 0 {
		return req.Body
	}
	b := &body{http.MaxBytesReader(w, req.Body, limit), http.NewResponseController(w), time}
	b.extend()
	return b
}

// extend allows b.time for the next part. It ignores an error, which means that the connection is gone; the next Read
// returns that error.
func (b *body) extend() { b.conn.SetReadDeadline(time.Now().Add(b.time)) }

// Read reads from the body. At the end of the body it removes the deadline of the connection, because the handler may
// take long to answer.
func (b *body) Read(p []byte) (int, error) {
	b.extend()
	n, err := b.ReadCloser.Read(p)
	switch {
	case err == io.EOF:
		b.conn.SetReadDeadline(time.Time{})
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = banger.Errorf(banger.CodeTimeout, "the body of the request did not come within %s", b.time)
	}
	return n, err
}

// Decode reads a JSON body strictly and to its end. It returns an error for an unknown field, for a second value
// and for bytes that are not UTF-8.
func Decode(req *http.Request, v any) error {
	data, err := io.ReadAll(req.Body)
	if late, ok := errors.AsType[*banger.Error](err); ok {
		return late
	}
	if err != nil {
		return banger.Errorf(banger.CodeInvalid, "cannot read the request body: %w", err)
	}
	if !utf8.Valid(data) { // the decoder would replace what is not
		return banger.Errorf(banger.CodeInvalid, "the request body has bytes that are not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return banger.Errorf(banger.CodeInvalid, "cannot read the request body: %w", err)
	}
	if _, err := d.Token(); err == io.EOF {
		return nil
	}
	return banger.Errorf(banger.CodeInvalid, "the request body goes on behind its JSON value")
}
