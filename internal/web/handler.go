package web

import (
	"context"
	"encoding/json"
	"io/fs"
	"net/http"
	"slices"
	"strings"

	"banger"
	"banger/internal/api/wire"
	"banger/internal/text"
)

// handler returns what answers browsers on a port.
func (s *Server) handler(port int) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /ui/login", s.answerLogin)
	mux.HandleFunc("POST /ui/tickets", s.private(s.answerTicket))
	mux.HandleFunc("GET /ui/sessions", s.private(func(w http.ResponseWriter, _ *http.Request, _ string) error {
		return wire.WriteJSON(w, s.list())
	}))
	mux.HandleFunc("DELETE /ui/sessions/{id}", s.private(func(w http.ResponseWriter, r *http.Request, _ string) error {
		if !s.revoke(r.PathValue("id")) {
			return banger.Errorf(banger.CodeNotFound, "there is no such session")
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}))
	if s.Local != nil {
		mux.HandleFunc("/ui/local/", s.private(func(w http.ResponseWriter, r *http.Request, _ string) error {
			s.Local.ServeHTTP(w, r)
			return nil
		}))
	}
	daemon, streams := s.daemon(), bridge{wire.New(s.Socket), s.Log}
	mux.HandleFunc("/v1/ui", http.NotFound) // a browser opens the UI for no other one
	mux.HandleFunc("/v1/", s.private(func(w http.ResponseWriter, r *http.Request, _ string) error {
		if r.Header.Get("Upgrade") != "" {
			return streams.answer(w, r)
		}
		w.Header().Set("Content-Security-Policy", answers)
		daemon.ServeHTTP(w, r)
		return nil
	}))
	mux.HandleFunc("/", s.file)
	allowed := hosts(port)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		headers(w.Header(), allowed)
		if err := ours(r, allowed); err != nil {
			wire.WriteError(w, err)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// ours returns an error for a request that no page of ours makes: to another name, or from another origin.
func ours(r *http.Request, allowed []string) error {
	if !slices.Contains(allowed, r.Host) {
		return banger.Errorf(banger.CodeDenied, "the web UI does not answer to the name %.80q", r.Host).
			WithHint("open the address that banger ui prints")
	}
	if origin := r.Header.Get("Origin"); origin != "" && origin != "http://"+r.Host {
		return banger.Errorf(banger.CodeDenied, "the web UI does not answer pages of %.80q", origin)
	}
	// A link or a file of the user's may lead to the page, which is in no frame and does nothing by itself.
	leads := r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate" &&
		!strings.HasPrefix(r.URL.Path, "/v1/") && !strings.HasPrefix(r.URL.Path, "/ui/")
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" && !leads {
		return banger.Errorf(banger.CodeDenied, "the web UI does not answer other pages")
	}
	return nil
}

// headers sets what each answer has: the page runs and shows only what is its own, is in no frame, and shares nothing.
func headers(h http.Header, allowed []string) {
	connect := "'self'"
	for _, host := range allowed {
		connect += " ws://" + host
	}
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "+
		"font-src 'self'; connect-src "+connect+"; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
}

// answers is the policy of the daemon's answers, which may be files of a guest: they are no pages.
const answers = "default-src 'none'; sandbox; frame-ancestors 'none'"

// private returns a handler for requests of a session. The end of the session ends their contexts.
func (s *Server) private(answer func(w http.ResponseWriter, r *http.Request, session string) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		one, done := s.begin(r)
		if one == nil {
			w.Header().Set("WWW-Authenticate", "Bearer")
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			text.WriteJSON(w, wire.ErrorBody{Error: banger.Errorf(banger.CodeDenied, "this browser has no session").
				WithHint("run banger ui, and open the address that it prints")}, "")
			return
		}
		defer done()
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(one.ctx, cancel)()
		if err := answer(w, r.WithContext(ctx), one.ID); err != nil {
			wire.WriteError(w, err)
		}
	}
}

// maxBody bounds what a browser sends to the UI itself.
const maxBody = 4 << 10

func read(w http.ResponseWriter, r *http.Request, v any) error {
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(v); err != nil {
		return banger.Errorf(banger.CodeInvalid, "the body is not what this takes")
	}
	return nil
}

func (s *Server) answerLogin(w http.ResponseWriter, r *http.Request) {
	var body struct{ Token string }
	err := read(w, r, &body)
	if err == nil {
		var bearer, id string
		if bearer, id, err = s.login(body.Token, r.UserAgent()); err == nil {
			err = wire.WriteJSON(w, map[string]string{"bearer": bearer, "id": id})
		}
	}
	if err != nil {
		wire.WriteError(w, err)
	}
}

func (s *Server) answerTicket(w http.ResponseWriter, r *http.Request, session string) error {
	var body struct{ Method, Path string }
	if err := read(w, r, &body); err != nil {
		return err
	}
	if !strings.HasPrefix(body.Path, "/v1/") && !strings.HasPrefix(body.Path, "/ui/") {
		return banger.Errorf(banger.CodeInvalid, "%.80q is no path of the API", body.Path)
	}
	text, err := s.ticket(session, body.Method, body.Path)
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, map[string]string{"ticket": text})
}

// file answers with a file of the page. Each path that is not among its assets is one of the page's views.
func (s *Server) file(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	name := strings.TrimPrefix(r.URL.Path, "/")
	if st, err := fs.Stat(s.Files, name); name == "" || err != nil || st.IsDir() {
		if strings.HasPrefix(name, "assets/") {
			http.NotFound(w, r)
			return
		}
		name = "index.html"
	}
	http.ServeFileFS(w, r, s.Files, name)
}
