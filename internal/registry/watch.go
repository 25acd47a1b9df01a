package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"time"
)

// How long hosts may be silent, except for the start of a connection and for small answers; see Options.Silence.
const (
	blobSilence   = 30 * time.Second // before a blob, which storage may have to fetch first
	uploadSilence = 5 * time.Minute  // behind an upload, which the registry may have to hash first
)

// stage is how far a request has come.
type stage int

const (
	connecting stage = iota
	connected        // to the host or to a proxy
	handshake        // of TLS
	sent             // the whole request
)

// errSilent is the cause of a context that was canceled because a host was silent.
var errSilent = errors.New("the host is silent")

// watch ends a request when its host is silent for too long. Each step forward gives the host new time.
type watch struct {
	silence time.Duration // in each stage but the last
	answer  time.Duration // in the last stage
	cancel  context.CancelCauseFunc

	mu    sync.Mutex
	at    stage
	alarm *time.Timer
}

// startWatch returns a context for a request that ends when its host is silent.
func startWatch(req *http.Request, silence time.Duration) (context.Context, *watch) {
	ctx, cancel := context.WithCancelCause(req.Context())
	w := &watch{silence: silence, answer: silence, cancel: cancel}
	switch {
	case req.Method != http.MethodGet && req.Method != http.MethodHead && !carriesPassword(req):
		w.answer = max(uploadSilence, silence)
	case isBlob(req):
		w.answer = max(blobSilence, silence)
	}
	w.alarm = time.AfterFunc(silence, func() { cancel(errSilent) })
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) { w.reach(connected) },
		ConnectDone: func(_, _ string, err error) {
			if err == nil {
				w.reach(connected)
			}
		},
		TLSHandshakeStart: func() { w.reach(handshake) },
		TLSHandshakeDone:  func(tls.ConnectionState, error) { w.reach(handshake) },
		WroteRequest:      func(httptrace.WroteRequestInfo) { w.reach(sent) },
	}), w
}

// isBlob reports whether a request, or the one that led to it by redirects, is for a blob.
func isBlob(req *http.Request) bool {
	for req.Response != nil && req.Response.Request != nil {
		req = req.Response.Request
	}
	return strings.Contains(req.URL.Path, "/blobs/")
}

// reach notes that a request has come to a stage.
func (w *watch) reach(s stage) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at = max(w.at, s)
	if w.at == sent {
		w.alarm.Reset(w.answer)
	} else {
		w.alarm.Reset(w.silence)
	}
}

// stop ends the watch of a request and returns how far it came.
func (w *watch) stop() stage {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.alarm.Stop()
	return w.at
}

// watchedBody is the body of an answer, which frees the request's context when it is closed. If silence is not 0, it
// also ends the request when nothing comes for so long.
type watchedBody struct {
	io.ReadCloser
	cancel  context.CancelCauseFunc
	silence time.Duration
	host    string
}

func (b *watchedBody) Read(p []byte) (int, error) {
	if b.silence == 0 {
		n, err := b.ReadCloser.Read(p)
		return n, b.brokenOff(err)
	}
	alarm := time.AfterFunc(b.silence, func() { b.cancel(errSilent) })
	n, err := b.ReadCloser.Read(p)
	if !alarm.Stop() && err != nil && err != io.EOF {
		err = &fault{text: b.host + " begins to answer and then is silent for " + seconds(b.silence),
			hint: "try again later", final: true}
	}
	return n, b.brokenOff(err)
}

// brokenOff returns err, or the fault of a connection that ends too early.
func (b *watchedBody) brokenOff(err error) error {
	if err == nil || err == io.EOF || !broken(err) {
		return err
	}
	return &fault{text: b.host + " breaks off the connection", hint: "try again later"}
}

func (b *watchedBody) Close() error {
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}
