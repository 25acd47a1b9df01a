package contextio

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestAReaderEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := NewReader(ctx, strings.NewReader("some text"))
	p := make([]byte, 4)
	if n, err := r.Read(p); n != 4 || err != nil || string(p) != "some" {
		t.Errorf("before the end of the context, Read returns %q, %v", p[:n], err)
	}
	cancel()
	if n, err := r.Read(p); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of the context, Read returns %d bytes, %v", n, err)
	}
	if got, err := io.ReadAll(NewReader(t.Context(), strings.NewReader("all"))); string(got) != "all" || err != nil {
		t.Errorf("ReadAll returns %q, %v", got, err)
	}
}
