package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/coder/acp-go-sdk"
	"github.com/rogpeppe/go-internal/testscript"

	"banger/internal/testing/model"
)

// model serves a scripted model on loopback for agents of all kinds, and sets $MODEL to its port. At the end of the
// story, it is gone.
func cmdModel(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, neg, len(args) != 0, "model")
	m := &model.Model{}
	server := httptest.NewServer(m)
	ts.Defer(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	ts.Check(err)
	ts.Setenv("MODEL", port)
	models.Store(port, m)
}

var models sync.Map // the models of stories, by their ports

// asked KEY LINE checks that an agent with a key has asked the model, and was told to run a line.
func cmdAsked(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, neg, len(args) != 2, "asked KEY LINE")
	m, ok := models.Load(ts.Getenv("MODEL"))
	if !ok {
		ts.Fatalf("there is no model")
	}
	asks := m.(*model.Model).Asked()
	for _, a := range asks {
		if a.Key == args[0] && a.Run == args[1] {
			return
		}
	}
	ts.Fatalf("the model was asked %+v", asks)
}

// zed FILE COMMAND... plays an editor that starts COMMAND as its agent and does what the lines of FILE say:
//
//	new DIR      begins a session in a directory of this host
//	prompt TEXT  gives the agent a task, and waits until its turn ends
//	killdaemon   kills banger's daemon
//	again        kills COMMAND with SIGKILL, starts it again, and loads the session
//
// What the agent says, and the places of its tools, go to stdout.
func cmdZed(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, neg, len(args) < 2, "zed FILE COMMAND...")
	script, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), storyTime)
	defer cancel()
	z := &zed{out: ts.Stdout(), argv: args[1:], dir: ts.MkAbs("."), env: environ(ts)}
	defer func() { z.end() }()
	if err := z.start(ctx); err != nil {
		ts.Fatalf("the agent does not initialize: %v\n%s", err, z.stderr.String())
	}
	for line := range strings.Lines(string(script)) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		rest = os.Expand(rest, ts.Getenv)
		var err error
		switch word {
		case "":
		case "new":
			err = z.begin(ctx, rest)
		case "prompt":
			err = z.prompt(ctx, rest)
		case "killdaemon":
			killAll(ts, "daemon", "")
		case "again":
			z.end()
			if err = z.start(ctx); err == nil {
				_, err = z.conn.LoadSession(ctx, acp.LoadSessionRequest{SessionId: z.session, Cwd: z.cwd,
					McpServers: []acp.McpServer{}})
			}
		default:
			err = fmt.Errorf("an editor does not know this")
		}
		if err != nil {
			ts.Fatalf("%s: %v\n%s", strings.TrimSpace(line), err, z.stderr.String())
		}
	}
	if err := z.close(); err != nil {
		ts.Fatalf("the agent ends with %v\n%s", err, z.stderr.String())
	}
}

// zed2 DIR COMMAND... plays an editor that speaks version 2 of the protocol, for which there is no library: it
// initializes, begins a session in DIR, and checks that the agent speaks that version and has the session in DIR.
func cmdZed2(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, neg, len(args) < 2, "zed2 DIR COMMAND...")
	cmd := exec.Command(args[1], args[2:]...)
	var stderr strings.Builder
	cmd.Dir, cmd.Env, cmd.Stderr = ts.MkAbs("."), environ(ts), &stderr
	in, err := cmd.StdinPipe()
	ts.Check(err)
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	limit := time.AfterFunc(storyTime, func() { cmd.Process.Kill() })
	defer limit.Stop()
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	ask := func(id int, method string, params map[string]any) (result map[string]any) {
		raw, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": id, "method": method, "params": params})
		ts.Check(err)
		_, err = in.Write(append(raw, '\n'))
		ts.Check(err)
		for lines.Scan() {
			var m struct {
				ID     *int
				Result map[string]any
				Error  any
			}
			ts.Check(json.Unmarshal(lines.Bytes(), &m))
			if m.ID != nil && *m.ID == id {
				if m.Error != nil {
					ts.Fatalf("%s: %v\n%s", method, m.Error, stderr.String())
				}
				return m.Result
			}
		}
		ts.Fatalf("%s is not answered\n%s", method, stderr.String())
		return nil
	}
	r := ask(0, "initialize", map[string]any{"protocolVersion": 2, "capabilities": map[string]any{},
		"info": map[string]any{"name": "story", "version": "1"}})
	if r["protocolVersion"] != 2.0 {
		ts.Fatalf("the agent speaks %v", r)
	}
	dir := args[0]
	if ask(1, "session/new", map[string]any{"cwd": dir, "mcpServers": []any{}})["sessionId"] == "" {
		ts.Fatalf("the session has no id")
	}
	ts.Check(in.Close())
	ts.Check(cmd.Wait())
}

// environ returns the environment of a story.
func environ(ts *testscript.TestScript) (env []string) {
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if value := ts.Getenv(name); value != "" {
			env = append(env, name+"="+value)
		}
	}
	env = append(env, theWorld(ts).env()...)
	return append(env, "HOME="+ts.Getenv("HOME"), "PATH="+ts.Getenv("PATH"))
}

// zed is the editor. It allows all that an agent asks for.
type zed struct {
	out  io.Writer
	argv []string
	dir  string
	env  []string

	cmd     *exec.Cmd
	in      io.WriteCloser
	stderr  strings.Builder
	conn    *acp.ClientSideConnection
	key     string // the agent's way to log in by a key, or ""
	session acp.SessionId
	cwd     string
}

// start starts the agent's command, and initializes the protocol with all that an editor may offer.
func (z *zed) start(ctx context.Context) error {
	z.cmd = exec.Command(z.argv[0], z.argv[1:]...)
	z.cmd.Dir, z.cmd.Env, z.cmd.Stderr = z.dir, z.env, &z.stderr
	in, err := z.cmd.StdinPipe()
	if err != nil {
		return err
	}
	z.in = in
	out, err := z.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := z.cmd.Start(); err != nil {
		return err
	}
	z.conn = acp.NewClientSideConnection(z, in, out)
	z.conn.SetLogger(slog.New(slog.DiscardHandler))
	r, err := z.conn.Initialize(ctx, acp.InitializeRequest{ProtocolVersion: acp.ProtocolVersionNumber,
		ClientCapabilities: acp.ClientCapabilities{Terminal: true,
			Fs: acp.FileSystemCapabilities{ReadTextFile: true, WriteTextFile: true}}})
	for _, m := range r.AuthMethods {
		if m.Agent != nil && strings.Contains(m.Agent.Id, "api-key") {
			z.key = m.Agent.Id
		}
	}
	return err
}

func (z *zed) begin(ctx context.Context, dir string) error {
	s, err := z.conn.NewSession(ctx, acp.NewSessionRequest{Cwd: dir, McpServers: []acp.McpServer{}})
	if err != nil && z.key != "" { // the agent wants to be told to use the key that it has
		if _, err = z.conn.Authenticate(ctx, acp.AuthenticateRequest{MethodId: z.key}); err == nil {
			s, err = z.conn.NewSession(ctx, acp.NewSessionRequest{Cwd: dir, McpServers: []acp.McpServer{}})
		}
	}
	if err == nil && s.SessionId == "" {
		err = errors.New("the session has no id")
	}
	z.session, z.cwd = s.SessionId, dir
	return err
}

func (z *zed) prompt(ctx context.Context, text string) error {
	r, err := z.conn.Prompt(ctx, acp.PromptRequest{SessionId: z.session, Prompt: []acp.ContentBlock{acp.TextBlock(text)}})
	if err == nil && r.StopReason != acp.StopReasonEndTurn {
		err = fmt.Errorf("the turn ends with %s", r.StopReason)
	}
	return err
}

// end kills the command.
func (z *zed) end() {
	if z.cmd != nil && z.cmd.Process != nil {
		z.cmd.Process.Kill()
		z.cmd.Wait()
	}
	z.cmd = nil
}

// close says no more, and waits for the end of the command.
func (z *zed) close() error {
	z.in.Close()
	limit := time.AfterFunc(time.Minute, func() { z.cmd.Process.Kill() })
	defer limit.Stop()
	err := z.cmd.Wait()
	z.cmd = nil
	return err
}

func (z *zed) SessionUpdate(_ context.Context, n acp.SessionNotification) error {
	u := n.Update
	switch {
	case u.AgentMessageChunk != nil && u.AgentMessageChunk.Content.Text != nil:
		fmt.Fprintln(z.out, "says", u.AgentMessageChunk.Content.Text.Text)
	case u.ToolCall != nil:
		for _, l := range u.ToolCall.Locations {
			fmt.Fprintln(z.out, "at", l.Path)
		}
	}
	return nil
}

func (z *zed) RequestPermission(_ context.Context, r acp.RequestPermissionRequest) (acp.RequestPermissionResponse,
	error) {
	for _, o := range r.Options {
		if o.Kind == acp.PermissionOptionKindAllowOnce || o.Kind == acp.PermissionOptionKindAllowAlways {
			fmt.Fprintln(z.out, "allowed")
			return acp.RequestPermissionResponse{Outcome: acp.NewRequestPermissionOutcomeSelected(o.OptionId)}, nil
		}
	}
	return acp.RequestPermissionResponse{Outcome: acp.NewRequestPermissionOutcomeCancelled()}, nil
}

// errOffered tells that an agent uses what banger takes out of the editor's offer.
var errOffered = fmt.Errorf("this is not for an agent in a VM")

func (z *zed) leaks(what string) error {
	fmt.Fprintln(z.out, "LEAK", what)
	return errOffered
}

func (z *zed) ReadTextFile(context.Context, acp.ReadTextFileRequest) (acp.ReadTextFileResponse, error) {
	return acp.ReadTextFileResponse{}, z.leaks("read")
}

func (z *zed) WriteTextFile(context.Context, acp.WriteTextFileRequest) (acp.WriteTextFileResponse, error) {
	return acp.WriteTextFileResponse{}, z.leaks("write")
}

func (z *zed) CreateTerminal(context.Context, acp.CreateTerminalRequest) (acp.CreateTerminalResponse, error) {
	return acp.CreateTerminalResponse{}, z.leaks("terminal")
}

func (z *zed) KillTerminal(context.Context, acp.KillTerminalRequest) (acp.KillTerminalResponse, error) {
	return acp.KillTerminalResponse{}, z.leaks("kill")
}

func (z *zed) TerminalOutput(context.Context, acp.TerminalOutputRequest) (acp.TerminalOutputResponse, error) {
	return acp.TerminalOutputResponse{}, z.leaks("output")
}

func (z *zed) ReleaseTerminal(context.Context, acp.ReleaseTerminalRequest) (acp.ReleaseTerminalResponse, error) {
	return acp.ReleaseTerminalResponse{}, z.leaks("release")
}

func (z *zed) WaitForTerminalExit(context.Context, acp.WaitForTerminalExitRequest) (acp.WaitForTerminalExitResponse,
	error) {
	return acp.WaitForTerminalExitResponse{}, z.leaks("wait")
}
