// Package acp changes the messages between an editor and a coding agent that works in a VM: the Agent Client
// Protocol, which is JSON-RPC 2.0 with one message a line (https://agentclientprotocol.com). Paths of the host become
// paths of the guest and back, and the agent is told that the editor offers neither files nor terminals, because
// those of the editor are not where the agent works. Messages that the package does not know pass as they are.
//
// The package must not know how messages travel, nor what a VM is.
package acp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"path"
	"strings"
	"sync"
)

// MaxMessage bounds one message.
const MaxMessage = 64 << 20

// Bridge is one editor's connection to one agent. Its methods may be called from several goroutines.
type Bridge struct {
	host, guest string // the directory of the workspace on each side

	mu      sync.Mutex
	pending map[string]string // methods of the editor's requests that are not answered, by their ids
}

// maxPending bounds how many requests may be open.
const maxPending = 1 << 16

// New returns the bridge for a workspace: host is its directory for the editor, and guest the one for the agent. Both
// are absolute and clean.
func New(host, guest string) *Bridge {
	return &Bridge{host: host, guest: guest, pending: map[string]string{}}
}

// message is a message by its fields. method is the text of that field, or "".
type message struct {
	fields map[string]json.RawMessage
	method string
}

// parse reads one message. Each field must be there once, so that no reader can take another one of two for it.
func parse(line []byte) (m message, ok bool) {
	d := json.NewDecoder(bytes.NewReader(line))
	m.fields = map[string]json.RawMessage{}
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return m, false
	}
	for d.More() {
		t, err := d.Token()
		key, isText := t.(string)
		var value json.RawMessage
		if err != nil || !isText || d.Decode(&value) != nil || m.fields[key] != nil {
			return m, false
		}
		m.fields[key] = value
	}
	if _, err := d.Token(); err != nil {
		return m, false
	}
	if _, err := d.Token(); err != io.EOF {
		return m, false
	}
	method, given := m.fields["method"]
	return m, !given || json.Unmarshal(method, &m.method) == nil
}

func (m message) id() json.RawMessage { return m.fields["id"] }

func (m message) response() bool {
	return m.method == "" && (m.fields["result"] != nil || m.fields["error"] != nil)
}

// refused are the beginnings of methods that an agent must not call: they would act on the host.
var refused = []string{"fs/", "terminal/"}

// Codes of errors, from the specification of JSON-RPC 2.0.
const (
	codeNoMethod = -32601
	codeParams   = -32602
)

// FromEditor returns the line for the agent in place of one of the editor's. If the message cannot be for this VM,
// answer is for the editor instead.
func (b *Bridge) FromEditor(line []byte) (out, answer []byte) {
	m, ok := parse(line)
	if !ok || m.method == "" {
		return line, nil
	}
	if m.id() != nil {
		b.mu.Lock()
		if len(b.pending) < maxPending {
			b.pending[string(m.id())] = m.method
		}
		b.mu.Unlock()
	}
	if m.method != "initialize" && !strings.HasPrefix(m.method, "session/") {
		return line, nil
	}
	params, ok := decode(m.fields["params"])
	if !ok {
		return line, nil
	}
	changed := false
	if m.method == "initialize" {
		changed = withoutCapabilities(params)
	} else {
		if dir, wrong := b.outside(params); wrong && m.id() != nil {
			b.answered(m.id())
			return nil, failure(m.id(), codeParams, fmt.Sprintf("%s is not in the workspace %s of this VM", dir, b.host))
		}
		changed = walk(params, b.toGuest)
	}
	return m.with(line, "params", params, changed), nil
}

// FromAgent returns the line for the editor in place of one of the agent's, or nil. answer is for the agent: what it
// asked must not reach the editor. stray is true for a line that is no message.
func (b *Bridge) FromAgent(line []byte) (out, answer []byte, stray bool) {
	m, ok := parse(line)
	if !ok {
		return nil, nil, true
	}
	if m.response() {
		return b.response(line, m), nil, false
	}
	for _, beginning := range refused {
		if strings.HasPrefix(m.method, beginning) {
			if m.id() == nil {
				return nil, nil, false
			}
			return nil, failure(m.id(), codeNoMethod, m.method+" is not offered: the agent works in the VM"), false
		}
	}
	if !strings.HasPrefix(m.method, "session/") {
		return line, nil, false
	}
	params, ok := decode(m.fields["params"])
	if !ok {
		return line, nil, false
	}
	return m.with(line, "params", params, walk(params, b.toHost)), nil, false
}

// response returns the line for an answer of the agent. An answer to what this editor has not asked is for an editor
// that was here before, and is dropped.
func (b *Bridge) response(line []byte, m message) []byte {
	method, ok := b.answered(m.id())
	if !ok {
		return nil
	}
	if !strings.HasPrefix(method, "session/") || m.fields["result"] == nil {
		return line
	}
	result, ok := decode(m.fields["result"])
	if !ok {
		return line
	}
	return m.with(line, "result", result, walk(result, b.toHost))
}

// answered forgets a request of the editor's, and returns its method.
func (b *Bridge) answered(id json.RawMessage) (method string, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	method, ok = b.pending[string(id)]
	delete(b.pending, string(id))
	return method, ok
}

// Waiting reports whether the agent has still to answer this editor.
func (b *Bridge) Waiting() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.pending) > 0
}

// decode reads an object without losing digits of its numbers.
func decode(raw json.RawMessage) (object map[string]any, ok bool) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	return object, d.Decode(&object) == nil && object != nil
}

// with returns the line with another value of one field, if that has changed.
func (m message) with(line []byte, field string, value any, changed bool) []byte {
	if !changed {
		return line
	}
	raw, err := marshal(value)
	if err != nil {
		return line
	}
	m.fields[field] = raw
	out, err := marshal(m.fields)
	if err != nil {
		return line
	}
	return out
}

// marshal is json.Marshal without its escapes for HTML, so that texts stay as they are. The result ends with a line
// end.
func marshal(v any) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return out.Bytes(), err
}

// failure returns an answer with an error.
func failure(id json.RawMessage, code int, text string) []byte {
	line, _ := marshal(map[string]any{"jsonrpc": "2.0", "id": id,
		"error": map[string]any{"code": code, "message": text}})
	return line
}

// withoutCapabilities takes the editor's files and terminals out of what it offers. Version 2 of the protocol has no
// such offers, and calls offers otherwise.
func withoutCapabilities(params map[string]any) (changed bool) {
	for _, field := range []string{"clientCapabilities", "capabilities"} {
		offers, _ := params[field].(map[string]any)
		for _, name := range []string{"fs", "terminal"} {
			if _, ok := offers[name]; ok {
				delete(offers, name)
				changed = true
			}
		}
	}
	return changed
}

// outside returns a directory of the editor's that the guest does not have.
func (b *Bridge) outside(params map[string]any) (dir string, wrong bool) {
	dirs, _ := params["additionalDirectories"].([]any)
	for _, v := range append([]any{params["cwd"]}, dirs...) {
		s, ok := v.(string)
		if !ok {
			continue
		}
		if _, ok := moved(s, b.host, b.guest); !ok {
			return s, true
		}
	}
	return "", false
}

// walk replaces the paths and file URIs in a value, and reports whether it has changed anything. What users and tools
// say stays as it is.
func walk(v any, to func(string) (string, bool)) (changed bool) {
	switch v := v.(type) {
	case []any:
		for i, one := range v {
			if s, ok := one.(string); ok {
				if now, ok := to(s); ok {
					v[i], changed = now, true
				}
			} else if walk(one, to) {
				changed = true
			}
		}
	case map[string]any:
		for key, one := range v {
			s, isText := one.(string)
			list, isList := one.([]any)
			switch {
			case raw[key]:
			case isText:
				if now, ok := to(s); ok && places[key] {
					v[key], changed = now, true
				}
			case isList && len(list) > 0 && !places[key]: // lists of texts are words, but for lists of directories
				if _, words := list[0].(string); !words && walk(one, to) {
					changed = true
				}
			default:
				if walk(one, to) {
					changed = true
				}
			}
		}
	}
	return changed
}

// places are the fields that hold a path or a URI; raw are those that hold anything.
var (
	places = map[string]bool{"cwd": true, "path": true, "oldPath": true, "uri": true, "additionalDirectories": true}
	raw    = map[string]bool{"rawInput": true, "rawOutput": true, "_meta": true}
)

func (b *Bridge) toGuest(s string) (string, bool) { return translated(s, b.host, b.guest) }
func (b *Bridge) toHost(s string) (string, bool)  { return translated(s, b.guest, b.host) }

// translated returns a path or a file URI below from as one below to.
func translated(s, from, to string) (string, bool) {
	if !strings.HasPrefix(s, "file://") {
		return moved(s, from, to)
	}
	u, err := url.Parse(s)
	if err != nil || u.Host != "" && u.Host != "localhost" {
		return s, false
	}
	now, ok := moved(u.Path, from, to)
	if ok {
		u.Path, u.RawPath = now, ""
	}
	return u.String(), ok
}

// moved returns a path below from as one below to.
func moved(s, from, to string) (string, bool) {
	if !path.IsAbs(s) {
		return s, false
	}
	clean := path.Clean(s)
	if clean == from {
		return to, true
	}
	rest, ok := strings.CutPrefix(clean, strings.TrimSuffix(from, "/")+"/")
	if !ok {
		return s, false
	}
	return path.Join(to, rest), true
}
