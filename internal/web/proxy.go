package web

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
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

// maxMessage bounds a message of a browser on a WebSocket, in bytes.
const maxMessage = 1 << 20

// bridge answers a WebSocket with a stream of the daemon's API. Browsers cannot send the requests with Upgrade by which
// the API begins such streams. So the first message of the browser is a text with the name of the protocol and the body
// of the request, which is a POST to the WebSocket's path. All later messages are binary and carry the stream's bytes,
// in pieces of any size. If the daemon refuses, the only answer is a text with the error.
func (s *Server) bridge(w http.ResponseWriter, r *http.Request) error {
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return nil // Accept has answered
	}
	defer ws.CloseNow()
	ws.SetReadLimit(maxMessage)
	ctx := r.Context()
	stream, err := s.begun(ctx, ws, r)
	if err != nil {
		said, _ := json.Marshal(wire.ErrorBody{Error: wire.NewError(err)})
		ws.Write(ctx, websocket.MessageText, said)
		ws.Close(websocket.StatusNormalClosure, "")
		return nil
	}
	defer stream.Close()
	browser := websocket.NetConn(ctx, ws, websocket.MessageBinary)
	go func() { // ends with the WebSocket
		io.Copy(stream, browser)
		stream.Close()
	}()
	io.Copy(browser, stream)
	ws.Close(websocket.StatusNormalClosure, "")
	return nil
}

// begun reads what the browser wants, and begins that stream of the API.
func (s *Server) begun(ctx context.Context, ws *websocket.Conn, r *http.Request) (net.Conn, error) {
	limited, cancel := context.WithTimeout(ctx, beginTime)
	defer cancel()
	kind, first, err := ws.Read(limited)
	var want struct {
		Upgrade string          `json:"upgrade"`
		Body    json.RawMessage `json:"body"`
	}
	if err != nil || kind != websocket.MessageText || json.Unmarshal(first, &want) != nil ||
		!strings.HasPrefix(want.Upgrade, "banger-") {
		return nil, banger.Errorf(banger.CodeInvalid, "the first message does not say what the WebSocket is for")
	}
	var body any
	if len(want.Body) > 0 {
		body = want.Body
	}
	q := r.URL.Query()
	q.Del("ticket")
	stream, err := wire.New(s.Socket).Upgrade(ctx, r.URL.Path, q, body, want.Upgrade)
	if err != nil {
		if _, ok := errors.AsType[*banger.Error](err); !ok {
			s.Log.Debug("a stream did not begin", "path", text.Limit(r.URL.Path, 200), "err", err)
			err = silent()
		}
		return nil, err
	}
	return stream, nil
}
