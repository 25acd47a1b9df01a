// Package model plays the model that a coding agent asks, for tests without an account: it speaks the streaming
// protocols of OpenAI (chat completions and responses), Anthropic (messages) and Google (generateContent). It does
// what the prompt says: it calls the agent's tool for a shell with the line behind "RUN:", and when that has a
// result, it says "done".
//
// The package must not know which agent asks, nor where it runs.
package model

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
)

// Model is a handler for the servers of all providers.
type Model struct {
	mu   sync.Mutex
	asks []Ask
}

// Ask is one request of an agent.
type Ask struct {
	Path string
	Key  string // the key or token that came with it
	Run  string // the line that the agent was told to run, or ""
}

// Asked returns the requests so far.
func (m *Model) Asked() []Ask {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]Ask(nil), m.asks...)
}

// marker is in front of what a prompt wants to have run.
const marker = "RUN:"

// turn is what a request comes to, whatever its protocol is.
type turn struct {
	prompt string // the latest text of the user's
	result bool   // the latest message is the result of a tool
	tool   *tool  // the shell, or nil
}

// tool is one tool that an agent offers.
type tool struct {
	Name       string `json:"name"`
	Parameters schema `json:"parameters"`
	// Anthropic and Google have other names for the same.
	Input schema `json:"input_schema"`
	JSON  schema `json:"parametersJsonSchema"`
}

type schema struct {
	Properties map[string]struct {
		Type any `json:"type"`
	} `json:"properties"`
	Required []string `json:"required"`
}

// shells are the names of tools that run a line of shell.
var shells = map[string]bool{"bash": true, "Bash": true, "shell": true, "shell_command": true, "exec_command": true,
	"run_shell_command": true, "local_shell": true}

// line returns what the turn's shell is to run, or "".
func (t turn) line() string {
	_, after, ok := strings.Cut(t.prompt, marker)
	if !ok || t.tool == nil || t.result {
		return ""
	}
	line, _, _ := strings.Cut(after, "\n")
	return strings.Trim(line, " \"") // some agents quote a prompt
}

// arguments returns the arguments of the tool for a line, by the tool's schema.
func (t tool) arguments(line string) map[string]any {
	s := t.Parameters
	for _, other := range []schema{t.Input, t.JSON} {
		if len(other.Properties) > 0 {
			s = other
		}
	}
	args := map[string]any{}
	for name, p := range s.Properties {
		switch {
		case name == "cmd" || name == "command":
			if args[name] = line; p.Type == "array" {
				args[name] = []string{"sh", "-c", line}
			}
		case contains(s.Required, name):
			args[name] = "as told"
		}
	}
	return args
}

func contains(list []string, s string) bool {
	for _, one := range list {
		if one == s {
			return true
		}
	}
	return false
}

// ServeHTTP answers a request of any of the protocols.
func (m *Model) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 64<<20))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var read func([]byte) turn
	var answer func(stream, turn)
	switch path := r.URL.Path; {
	case strings.HasSuffix(path, "/chat/completions"):
		read, answer = readChat, answerChat
	case strings.HasSuffix(path, "/responses"):
		read, answer = readResponses, answerResponses
	case strings.HasSuffix(path, "/messages"):
		read, answer = readMessages, answerMessages
	case strings.Contains(path, "enerateContent"):
		read, answer = readGemini, answerGemini
	case strings.HasSuffix(path, "/models"):
		io.WriteString(w, `{"object":"list","data":[{"id":"scripted","object":"model"}],"models":[]}`)
		return
	default:
		http.NotFound(w, r)
		return
	}
	t := read(body)
	m.mu.Lock()
	m.asks = append(m.asks, Ask{r.URL.Path, keyOf(r), t.line()})
	number := len(m.asks)
	m.mu.Unlock()
	w.Header().Set("Content-Type", "text/event-stream")
	if strings.HasSuffix(r.URL.Path, ":generateContent") {
		w.Header().Set("Content-Type", "application/json")
	}
	answer(stream{w, strings.HasSuffix(r.URL.Path, ":generateContent"), fmt.Sprint(number)}, t)
}

func keyOf(r *http.Request) string {
	for _, name := range []string{"X-Api-Key", "X-Goog-Api-Key"} {
		if key := r.Header.Get(name); key != "" {
			return key
		}
	}
	return strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
}

// stream writes server-sent events. A whole answer is one JSON value instead.
type stream struct {
	w     io.Writer
	whole bool
	id    string // differs in each answer: agents take equal ids for the same call
}

func (s stream) event(name string, v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err) // the values are of this package
	}
	if s.whole {
		s.w.Write(raw)
		return
	}
	if name != "" {
		fmt.Fprintf(s.w, "event: %s\n", name)
	}
	fmt.Fprintf(s.w, "data: %s\n\n", raw)
}

func (s stream) end(line string) { fmt.Fprintf(s.w, "data: %s\n\n", line) }

// said is the text of each answer that calls no tool.
const said = "done"

// obj is a JSON object.
type obj = map[string]any
