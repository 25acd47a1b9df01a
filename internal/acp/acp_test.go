package acp

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func same(t *testing.T, got []byte, want string) {
	t.Helper()
	var g, w any
	if want == "" && got == nil {
		return
	}
	if json.Unmarshal(got, &g) != nil || json.Unmarshal([]byte(want), &w) != nil || !reflect.DeepEqual(g, w) {
		t.Errorf("it is\n%s\nbut should be\n%s", got, want)
	}
}

// refusal is the answer with an error.
func refusal(id string, code int, text string) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"error":{"code":%d,"message":%q}}`, id, code, text)
}

const (
	notHere    = "not in the workspace /home/me/p of this VM"
	notOffered = "not offered: the agent works in the VM"
)

// TestWhatAnEditorSays checks each kind of message that is changed, and that others pass byte for byte.
func TestWhatAnEditorSays(t *testing.T) {
	for name, c := range map[string]struct{ in, out, answer string }{
		"the agent is offered neither files nor terminals": {
			in: `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":1,"clientCapabilities":` +
				`{"fs":{"readTextFile":true,"writeTextFile":true},"terminal":true,"_meta":{"x":1}}}}`,
			out: `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":1,"clientCapabilities":` +
				`{"_meta":{"x":1}}}}`,
		},
		"nor in version 2": {
			in: `{"id":0,"method":"initialize","params":{"protocolVersion":2,"info":{"name":"x"},"capabilities":` +
				`{"fs":{},"session":{}}}}`,
			out: `{"id":0,"method":"initialize","params":{"protocolVersion":2,"info":{"name":"x"},"capabilities":{"session":{}}}}`,
		},
		"directories of a session": {
			in: `{"id":1,"method":"session/new","params":{"cwd":"/home/me/p/sub","additionalDirectories":["/home/me/p"],` +
				`"mcpServers":[{"name":"x","command":"/home/me/p/mcp","args":["/home/me/p"],"env":[]}]}}`,
			out: `{"id":1,"method":"session/new","params":{"cwd":"/workspace/sub","additionalDirectories":["/workspace"],` +
				`"mcpServers":[{"name":"x","command":"/home/me/p/mcp","args":["/home/me/p"],"env":[]}]}}`,
		},
		"a directory outside": {
			in:     `{"id":2,"method":"session/new","params":{"cwd":"/home/me/other"}}`,
			answer: refusal(`2`, -32602, "/home/me/other is "+notHere),
		},
		"a directory that leads out": {
			in:     `{"id":2,"method":"session/load","params":{"cwd":"/home/me/p/../.ssh"}}`,
			answer: refusal(`2`, -32602, "/home/me/p/../.ssh is "+notHere),
		},
		"a neighbour with the same beginning": {
			in:     `{"id":2,"method":"session/new","params":{"cwd":"/home/me/p2"}}`,
			answer: refusal(`2`, -32602, "/home/me/p2 is "+notHere),
		},
		"URIs in a prompt, but not its text": {
			in: `{"id":3,"method":"session/prompt","params":{"sessionId":"s","prompt":[` +
				`{"type":"text","text":"see /home/me/p/a <b>"},` +
				`{"type":"resource_link","uri":"file:///home/me/p/a%20b.go","name":"a b.go"},` +
				`{"type":"resource","resource":{"uri":"file:///home/me/p/x","text":"/home/me/p"}},` +
				`{"type":"resource_link","uri":"https://x.example/home/me/p","name":"/home/me/p"}]}}`,
			out: `{"id":3,"method":"session/prompt","params":{"sessionId":"s","prompt":[` +
				`{"type":"text","text":"see /home/me/p/a <b>"},` +
				`{"type":"resource_link","uri":"file:///workspace/a%20b.go","name":"a b.go"},` +
				`{"type":"resource","resource":{"uri":"file:///workspace/x","text":"/home/me/p"}},` +
				`{"type":"resource_link","uri":"https://x.example/home/me/p","name":"/home/me/p"}]}}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			out, answer := New("/home/me/p", "/workspace").FromEditor([]byte(c.in + "\n"))
			same(t, out, c.out)
			same(t, answer, c.answer)
		})
	}
	for _, line := range []string{
		`{"jsonrpc":"2.0","id":9,"method":"_vendor/thing","params":{"cwd":"/home/me/p", "n":12345678901234567890}}`,
		`{"jsonrpc":"2.0","method":"session/cancel","params":{"sessionId":"s"}}`,
		`{"jsonrpc":"2.0","id":"x","result":{"outcome":{"outcome":"selected"}}}`,
		`{"jsonrpc":"2.0","id":7,"method":"initialize","params":{"protocolVersion":2,"clientCapabilities":{}}}`,
		`not a message`,
	} {
		if out, answer := New("/home/me/p", "/workspace").FromEditor([]byte(line)); string(out) != line || answer != nil {
			t.Errorf("%s becomes %s, %s", line, out, answer)
		}
	}
}

// TestWhatAnAgentSays checks what reaches the editor, what is refused, and what is no message.
func TestWhatAnAgentSays(t *testing.T) {
	b := New("/home/me/p", "/workspace")
	b.FromEditor([]byte(`{"id":4,"method":"session/list","params":{}}`))
	for name, c := range map[string]struct {
		in, out, answer string
		stray           bool
	}{
		"places of a tool call, but not what the tool says": {
			in: `{"method":"session/update","params":{"sessionId":"s","update":{"sessionUpdate":"tool_call","locations":` +
				`[{"path":"/workspace/a.go","line":3}],"content":[` +
				`{"type":"diff","path":"/workspace/a.go","newText":"/workspace"}],` +
				`"rawInput":{"path":"/workspace/a.go"}}}}`,
			out: `{"method":"session/update","params":{"sessionId":"s","update":{"sessionUpdate":"tool_call","locations":` +
				`[{"path":"/home/me/p/a.go","line":3}],"content":[` +
				`{"type":"diff","path":"/home/me/p/a.go","newText":"/workspace"}],` +
				`"rawInput":{"path":"/workspace/a.go"}}}}`,
		},
		"a file that has moved, in version 2": {
			in: `{"method":"session/update","params":{"update":{"sessionUpdate":"tool_call_update","content":[` +
				`{"type":"diff","changes":[{"operation":"move","oldPath":"/workspace/a","path":"/workspace/b"}]}]}}}`,
			out: `{"method":"session/update","params":{"update":{"sessionUpdate":"tool_call_update","content":[` +
				`{"type":"diff","changes":[{"operation":"move","oldPath":"/home/me/p/a","path":"/home/me/p/b"}]}]}}}`,
		},
		"a file of the guest that is in no workspace": {
			in:  `{"method":"session/update","params":{"update":{"locations":[{"path":"/etc/passwd"}]}}}`,
			out: `{"method":"session/update","params":{"update":{"locations":[{"path":"/etc/passwd"}]}}}`,
		},
		"the answer to a list of sessions": {
			in:  `{"id":4,"result":{"sessions":[{"sessionId":"s","cwd":"/workspace"}]}}`,
			out: `{"id":4,"result":{"sessions":[{"sessionId":"s","cwd":"/home/me/p"}]}}`,
		},
		"an answer for an editor that is gone": {in: `{"id":77,"result":{}}`},
		"reading a file of the host": {
			in:     `{"id":5,"method":"fs/read_text_file","params":{"path":"/etc/shadow"}}`,
			answer: refusal(`5`, -32601, "fs/read_text_file is "+notOffered),
		},
		"a command of the host": {
			in:     `{"id":"t","method":"terminal/create","params":{"command":"sh"}}`,
			answer: refusal(`"t"`, -32601, "terminal/create is "+notOffered),
		},
		"two methods in one": {
			in: `{"id":5,"method":"fs/read_text_file","params":{},"method":"session/update"}`, stray: true,
		},
		"a method in other letters": {
			in:     `{"id":6,"method":"fs/read_text_file","params":{},"Method":"session/update"}`,
			answer: refusal(`6`, -32601, "fs/read_text_file is "+notOffered),
		},
		"two messages in a line":     {in: `{"method":"session/update"}{"id":5,"method":"fs/read_text_file"}`, stray: true},
		"what is printed by mistake": {in: "Loading plugins...", stray: true},
		"an empty line":              {in: "", stray: true},
	} {
		t.Run(name, func(t *testing.T) {
			out, answer, stray := b.FromAgent([]byte(c.in))
			same(t, out, c.out)
			same(t, answer, c.answer)
			if stray != c.stray {
				t.Errorf("stray is %v", stray)
			}
		})
	}
}

// TestARequestIsOpenUntilItsAnswer checks which requests wait.
func TestARequestIsOpenUntilItsAnswer(t *testing.T) {
	b := New("/p", "/workspace")
	b.FromEditor([]byte(`{"id":"a","method":"session/prompt","params":{}}`))
	if !b.Waiting() {
		t.Error("nothing waits for the prompt")
	}
	if out, _, _ := b.FromAgent([]byte(`{"id":"a","result":{"stopReason":"end_turn"}}`)); out == nil || b.Waiting() {
		t.Errorf("the answer is %s, and waiting is %v", out, b.Waiting())
	}
}

// FuzzMessages checks that no message breaks the bridge, and that a message stays one line.
func FuzzMessages(f *testing.F) {
	f.Add(`{"id":1,"method":"session/new","params":{"cwd":"/home/me/p"}}`, `{"id":1,"result":{"cwd":"/workspace\n"}}`)
	f.Add(`{"method":"initialize","params":[]}`, `{"id":null,"method":"fs/x"}`)
	f.Fuzz(func(t *testing.T, editor, agent string) {
		b := New("/home/me/p", "/workspace")
		check := func(line []byte, from string) {
			if strings.ContainsRune(from, '\n') {
				return
			}
			if strings.Contains(strings.TrimSuffix(string(line), "\n"), "\n") {
				t.Errorf("%q becomes lines: %q", from, line)
			}
		}
		out, answer := b.FromEditor([]byte(editor))
		check(out, editor)
		check(answer, editor)
		back, refusal, _ := b.FromAgent([]byte(agent))
		check(back, agent)
		check(refusal, agent)
	})
}
