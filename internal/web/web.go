// Package web serves the web UI on loopback: the files of the page, and the daemon's API for browsers that have a
// session. It runs in a process of its own, so that sessions and the port outlive a daemon that is started again. The
// process passes requests on to the daemon's socket.
//
// A browser gets a session for a token, which is in the part of an address that browsers send to nobody, works once
// and only for a minute. There is no cookie: cookies ignore ports, so each page that a VM publishes on loopback would
// get it. A session is a bearer token, which the page keeps for itself. Streams and downloads, which cannot have
// headers, use tickets: each is for one method and one path, works once, and only for half a minute.
//
// The package must not know what the API does, nor what the page shows.
package web

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"banger"
	"banger/internal/text"
)

// How long things live.
const (
	TokenTime  = time.Minute
	TicketTime = 30 * time.Second
	IdleTime   = time.Hour // after which the listener closes, if no session has asked for anything
)

// MaxSessions bounds the browsers that have a session; a login beyond it ends the one that was used longest ago.
const MaxSessions = 64

// Server is the web UI of one daemon. The caller sets its exported fields before Open is called.
type Server struct {
	Socket string       // of the daemon, which gets requests below /v1/
	Files  fs.FS        // the page; index.html is at its top
	Local  http.Handler // answers requests of sessions below /ui/local/; nil means that nothing is there
	Log    *slog.Logger
	Now    func() time.Time // the clock; nil means time.Now

	mu       sync.Mutex
	ln       net.Listener // nil while the UI is closed
	http     *http.Server
	tokens   map[string]time.Time // their ends, by hash
	sessions map[string]*Session  // by the hash of the bearer token
	tickets  map[string]ticket    // by hash
}

// Session is one browser.
type Session struct {
	ID      string    `json:"id"`
	Browser string    `json:"browser"` // what the browser calls itself; untrusted
	Created time.Time `json:"created"`
	Used    time.Time `json:"used"`

	open int             // requests that are being answered
	ctx  context.Context // ends with the session, which cuts those requests off
	end  context.CancelFunc
}

type ticket struct {
	method, path string
	session      string // its ID
	ends         time.Time
}

// Opened is the answer to Open.
type Opened struct {
	URL     string `json:"url"`     // with a token, which works once
	Version string `json:"version"` // of the program that serves the page
}

func (s *Server) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// secret returns a new random text of 256 bits, and the name under which it is kept: a hash, so that a comparison
// tells nothing by its time.
func secret() (text, name string) {
	var raw [32]byte
	rand.Read(raw[:])
	text = hex.EncodeToString(raw[:])
	return text, nameOf(text)
}

func nameOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// Open starts to listen on a free port of 127.0.0.1, unless it does already, and returns an address for one browser.
func (s *Server) Open() (Opened, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ln == nil {
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return Opened{}, banger.Errorf(banger.CodeUnavailable, "cannot listen on 127.0.0.1: %w", banger.Cause(err))
		}
		s.ln = ln
		s.tokens, s.sessions, s.tickets = map[string]time.Time{}, map[string]*Session{}, map[string]ticket{}
		s.http = &http.Server{Handler: s.handler(ln.Addr().(*net.TCPAddr).Port), ReadHeaderTimeout: 10 * time.Second}
		go s.serve(s.http, ln) // ends with Close
	}
	text, name := secret()
	s.tokens[name] = s.now().Add(TokenTime)
	return Opened{"http://" + s.ln.Addr().String() + "/#token=" + text, banger.Version}, nil
}

func (s *Server) serve(srv *http.Server, ln net.Listener) {
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		s.Log.Error("the web UI ended", "err", err)
	}
}

// Tidy ends what has lived long enough: tokens, tickets, and the listener. It is called now and then. It reports
// whether the UI is open.
func (s *Server) Tidy(ctx context.Context) bool {
	s.mu.Lock()
	now := s.now()
	for name, ends := range s.tokens {
		if now.After(ends) {
			delete(s.tokens, name)
		}
	}
	for name, t := range s.tickets {
		if now.After(t.ends) {
			delete(s.tickets, name)
		}
	}
	idle := len(s.tokens) == 0
	for _, one := range s.sessions {
		idle = idle && one.open == 0 && now.Sub(one.Used) > IdleTime
	}
	s.mu.Unlock()
	if idle {
		s.Close(ctx)
	}
	return !idle
}

// Close stops to listen, and ends all sessions.
func (s *Server) Close(ctx context.Context) {
	s.mu.Lock()
	srv := s.http
	for name := range s.sessions {
		s.end(name)
	}
	s.ln, s.http, s.tokens, s.sessions, s.tickets = nil, nil, nil, nil, nil
	s.mu.Unlock()
	if srv == nil {
		return
	}
	if err := srv.Shutdown(ctx); err != nil {
		srv.Close()
	}
}

// login gives a browser a session for a token.
func (s *Server) login(token, browser string) (bearer, id string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := nameOf(token)
	ends, ok := s.tokens[name]
	delete(s.tokens, name)
	if !ok || s.now().After(ends) {
		return "", "", banger.Errorf(banger.CodeDenied, "this address has been used, or is older than a minute").
			WithHint("get another one: banger ui")
	}
	if len(s.sessions) >= MaxSessions {
		oldest := ""
		for name, one := range s.sessions {
			if oldest == "" || one.Used.Before(s.sessions[oldest].Used) {
				oldest = name
			}
		}
		s.end(oldest)
	}
	bearer, name = secret()
	_, id = secret()
	now := s.now()
	one := &Session{ID: id[:16], Browser: text.Limit(browser, 200), Created: now, Used: now}
	one.ctx, one.end = context.WithCancel(context.Background())
	s.sessions[name] = one
	return bearer, one.ID, nil
}

// begin returns the session of a request: that of its bearer token, or of a ticket for its method and path. It returns
// nil if no session fits. The caller calls done at the end of the request.
func (s *Server) begin(r *http.Request) (one *Session, done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if bearer, found := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); found {
		one = s.sessions[nameOf(bearer)]
	} else {
		name := nameOf(r.URL.Query().Get("ticket"))
		t, found := s.tickets[name]
		delete(s.tickets, name)
		if found && !now.After(t.ends) && t.method == r.Method && t.path == r.URL.Path {
			one = s.sessions[s.nameOfID(t.session)]
		}
	}
	if one == nil {
		return nil, nil
	}
	one.open++
	one.Used = now
	return one, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		one.open--
		one.Used = s.now()
	}
}

// nameOfID returns the name of the session with an ID, or "". mu is held.
func (s *Server) nameOfID(id string) string {
	for name, one := range s.sessions {
		if one.ID == id {
			return name
		}
	}
	return ""
}

// end ends a session, and cuts off what it asks for. mu is held.
func (s *Server) end(name string) {
	s.sessions[name].end()
	delete(s.sessions, name)
}

// maxTickets bounds the tickets that are open.
const maxTickets = 4096

// ticket returns a ticket of a session for one request.
func (s *Server) ticket(session, method, path string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tickets) >= maxTickets {
		return "", banger.Errorf(banger.CodeUnavailable, "too many tickets are open")
	}
	text, name := secret()
	s.tickets[name] = ticket{method, path, session, s.now().Add(TicketTime)}
	return text, nil
}

// list returns the sessions, the newest first.
func (s *Server) list() []Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []Session{}
	for _, one := range s.sessions {
		list = append(list, *one)
	}
	slices.SortFunc(list, func(a, b Session) int { return b.Created.Compare(a.Created) })
	return list
}

// revoke ends a session. It returns false if there is no such session.
func (s *Server) revoke(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := s.nameOfID(id)
	if name != "" {
		s.end(name)
	}
	return name != ""
}

// hosts are the names under which a browser may ask a listener on a port. Another one means that a foreign name leads
// here (DNS rebinding).
func hosts(port int) []string {
	p := ":" + strconv.Itoa(port)
	return []string{"127.0.0.1" + p, "localhost" + p}
}
