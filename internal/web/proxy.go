package web

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"github.com/coder/websocket"

	"banger"
	"banger/internal/api/wire"
	"banger/internal/private"
	"banger/internal/text"
)

// daemon returns a handler that passes requests on to the daemon's socket. What a browser says about itself stays here.
func (s *Server) daemon() http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", "banger", "banger"
			q := r.Out.URL.Query()
			q.Del("ticket")
			r.Out.URL.RawQuery = q.Encode()
			for _, name := range []string{"Authorization", "Cookie", "Origin", "Referer", "User-Agent"} {
				r.Out.Header.Del(name)
			}
		},
		Transport: &http.Transport{
			DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return private.Dial(ctx, s.Socket) },
			DisableCompression: true,
		},
		FlushInterval: -1, // lines of a stream go on at once
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() == nil {
				wire.WriteError(w, silent())
			}
		},
	}
}

func silent() error {
	return banger.Errorf(banger.CodeUnavailable, "the daemon does not answer").
		WithHint("each banger command starts it again, for example: banger ps")
}

// beginTime is how long a browser may take to say what it wants of a WebSocket.
const beginTime = 10 * time.Second

// Bounds of messages on a WebSocket, in bytes.
const (
	maxMessage = 1 << 20  // of a browser
	followSize = 64 << 10 // of an answer that a browser follows
)

// bridge carries streams of the daemon's API to browsers.
type bridge struct {
	api *wire.Transport // to the daemon
	log *slog.Logger
}

// answer answers a WebSocket with a stream of the daemon's API. The first message of the browser is a text that says
// what the WebSocket is for.
//
// With the name of a protocol and the body of a request, it is a stream that the API begins by an Upgrade, which
// browsers cannot ask for: a POST to the WebSocket's path. All later messages are binary and carry the stream's bytes,
// in pieces of any size.
//
// Without a protocol, it is the answer to a GET of that path: a text {} once the daemon answers, and then binary
// messages with the answer's bytes. A browser has six connections to one host for such answers, and a page may follow
// as many.
//
// If the daemon refuses, the only message is a text with the error. A WebSocket that is closed normally had all bytes.
func (b bridge) answer(w http.ResponseWriter, r *http.Request) error {
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return nil // Accept has answered
	}
	defer ws.CloseNow()
	ws.SetReadLimit(maxMessage)
	ctx := r.Context()
	q := r.URL.Query()
	q.Del("ticket")
	want, err := begun(ctx, ws)
	switch {
	case err != nil:
	case want.Upgrade == "":
		err = b.follow(ctx, ws, r.URL.Path, q)
	default:
		err = b.carry(ctx, ws, r.URL.Path, q, want)
	}
	if err == nil {
		ws.Close(websocket.StatusNormalClosure, "")
		return nil
	}
	if _, ok := errors.AsType[*banger.Error](err); !ok {
		b.log.Debug("a stream did not begin", "path", text.Limit(r.URL.Path, 200), "err", err)
		err = silent()
	}
	said, _ := json.Marshal(wire.ErrorBody{Error: wire.NewError(err)})
	ws.Write(ctx, websocket.MessageText, said)
	ws.Close(websocket.StatusNormalClosure, "")
	return nil
}

// beginning is the first message of a browser on a WebSocket.
type beginning struct {
	Upgrade string          `json:"upgrade"` // "" for the answer to a GET
	Body    json.RawMessage `json:"body"`
}

// begun reads what the browser wants.
func begun(ctx context.Context, ws *websocket.Conn) (want beginning, err error) {
	limited, cancel := context.WithTimeout(ctx, beginTime)
	defer cancel()
	kind, first, err := ws.Read(limited)
	if err != nil || kind != websocket.MessageText || json.Unmarshal(first, &want) != nil ||
		want.Upgrade != "" && !strings.HasPrefix(want.Upgrade, "banger-") {
		return want, banger.Errorf(banger.CodeInvalid, "the first message does not say what the WebSocket is for")
	}
	return want, nil
}

// carry passes bytes on between the browser and a stream of the API. An error means that the stream did not begin.
func (b bridge) carry(ctx context.Context, ws *websocket.Conn, path string, q url.Values, want beginning) error {
	var body any
	if len(want.Body) > 0 {
		body = want.Body
	}
	stream, err := b.api.Upgrade(ctx, path, q, body, want.Upgrade)
	if err != nil {
		return err
	}
	defer stream.Close()
	browser := websocket.NetConn(ctx, ws, websocket.MessageBinary)
	go func() { // ends with the WebSocket
		io.Copy(stream, browser)
		stream.Close()
	}()
	io.Copy(browser, stream)
	return nil
}

// follow passes on the answer to a GET, as it comes, until it ends or the browser has gone. An error means that there
// is no answer.
func (b bridge) follow(ctx context.Context, ws *websocket.Conn, path string, q url.Values) error {
	ctx = ws.CloseRead(ctx) // which ends when the browser has gone
	resp, err := b.api.Send(ctx, "GET", path, q, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := ws.Write(ctx, websocket.MessageText, []byte("{}")); err != nil {
		return nil // the browser has gone
	}
	buf := make([]byte, followSize)
	for {
		n, err := resp.Body.Read(buf)
		if n > 0 && ws.Write(ctx, websocket.MessageBinary, buf[:n]) != nil {
			return nil
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			ws.Close(websocket.StatusInternalError, "the daemon went away")
			return nil
		}
	}
}
