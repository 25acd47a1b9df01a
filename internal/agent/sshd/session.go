package sshd

import (
	"cmp"
	"io"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/agent/command"
)

// maxEnv bounds the variables that a client may set for one command.
const maxEnv = 128

// session is one session channel: at most one command.
type session struct {
	c       *Connection
	channel ssh.Channel
	env     []string
	pty     *terminal
	p       *command.Process // nil until a command runs
	begun   bool
	over    chan struct{} // closed when the client has the command's exit
}

func (c *Connection) session(n ssh.NewChannel) {
	channel, requests, err := n.Accept()
	if err != nil {
		return
	}
	c.mu.Lock()
	c.sessions[channel] = true
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.sessions, channel)
		c.mu.Unlock()
	}()
	s := &session{c: c, channel: channel, over: make(chan struct{})}
	for r := range requests { // ends with the channel
		ok := s.handle(r)
		if r.WantReply {
			r.Reply(ok, nil)
		}
		if ok && s.p != nil && !s.begun {
			s.begun = true
			c.wg.Go(s.run)
		}
	}
	if s.p != nil {
		s.p.HangUp()
		<-s.over
	}
	channel.Close()
}

// handle obeys one request and reports whether it could.
func (s *session) handle(r *ssh.Request) bool {
	switch r.Type {
	case "env":
		return s.setEnv(r.Payload)
	case "pty-req":
		t := new(terminal)
		if s.begun || ssh.Unmarshal(r.Payload, t) != nil ||
			len(t.Term) > 256 || strings.IndexByte(t.Term, 0) >= 0 {
			return false
		}
		s.pty = t
		return true
	case "window-change":
		return s.resize(r.Payload)
	case "signal":
		var name struct{ Name string }
		if s.p == nil || ssh.Unmarshal(r.Payload, &name) != nil {
			return false
		}
		sig, err := banger.ParseSignal(name.Name)
		return err == nil && s.p.Signal(syscall.Signal(sig)) == nil
	case "auth-agent-req@openssh.com":
		return s.c.forwardAgent() == nil
	case "shell", "exec", "subsystem":
		return s.begin(r)
	}
	return false
}

// setEnv accepts the variables of a client's language and terminal; all others could
// change what a command does.
func (s *session) setEnv(payload []byte) bool {
	var v struct{ Name, Value string }
	if ssh.Unmarshal(payload, &v) != nil || len(s.env) >= maxEnv || strings.ContainsAny(v.Name+v.Value, "\x00") {
		return false
	}
	known := v.Name == "LANG" || v.Name == "TERM" || v.Name == "COLORTERM" || strings.HasPrefix(v.Name, "LC_")
	if !known || strings.Contains(v.Name, "=") {
		return false
	}
	s.env = append(s.env, v.Name+"="+v.Value)
	return true
}

func (s *session) resize(payload []byte) bool {
	var w struct{ Cols, Rows, Width, Height uint32 }
	if ssh.Unmarshal(payload, &w) != nil || s.pty == nil {
		return false
	}
	s.pty.Cols, s.pty.Rows = w.Cols, w.Rows
	return s.p == nil || s.p.Resize(s.pty.size()) == nil
}

// begin starts the session's command. If the command cannot be started, that is not an error of
// SSH: the client reads the reason on stderr, as from a shell.
func (s *session) begin(r *ssh.Request) bool {
	var arg struct{ Text string }
	if s.begun || r.Type != "shell" && ssh.Unmarshal(r.Payload, &arg) != nil ||
		r.Type == "subsystem" && arg.Text != "sftp" {
		return false
	}
	login := loginOf(s.c.login, s.c.user)
	e := banger.Exec{User: s.c.login, Dir: login.dir(), Env: s.environment(login), Stdin: true}
	how, err := command.Options{}, error(nil)
	if s.pty != nil && r.Type != "subsystem" {
		e.TTY = true
		e.Rows, e.Cols = s.pty.size()
		how.Modes = s.pty.setModes
	}
	switch {
	case r.Type == "subsystem":
		e.Args, how.Helper = []string{selfProgram, sftpArgument}, true
	case login.shell == "" && r.Type == "shell":
		err = banger.Errorf(banger.CodeCommandAbsent,
			"this image has no shell (give a command: its words are then run as they are)")
	case login.shell == "":
		e.Args = splitWords(arg.Text)
	case r.Type == "shell":
		how.File, e.Args = login.shell, []string{"-" + login.shell[strings.LastIndexByte(login.shell, '/')+1:]}
	default:
		e.Args = []string{login.shell, "-c", arg.Text}
	}
	if err == nil {
		s.p, err = s.c.server.commands.Start(&e, how)
	}
	if err == nil && !e.TTY {
		s.p.SpareDaemons()
	}
	if err != nil {
		s.begun = true
		s.c.wg.Go(func() { s.refuse(err) })
	}
	return true
}

// environment returns the environment of a command: the image's and the VM's variables, the
// user's, and those that the client may set.
func (s *session) environment(login login) []string {
	env := append([]string{}, s.c.request.Env...)
	set := func(key, value string) {
		if value != "" {
			env = append(withoutEnv(env, key), key+"="+value)
		}
	}
	set("HOME", login.home)
	set("USER", login.name)
	set("LOGNAME", login.name)
	set("SHELL", login.shell)
	// There are no addresses, but programs check whether the variable is set.
	set("SSH_CONNECTION", "0.0.0.0 0 0.0.0.0 22")
	set("SSH_AUTH_SOCK", s.c.agentSocket())
	for _, kv := range s.env {
		key, value, _ := strings.Cut(kv, "=")
		set(key, value)
	}
	if s.pty != nil {
		set("TERM", s.pty.Term)
	}
	return env
}

func withoutEnv(env []string, key string) []string {
	kept := env[:0]
	for _, kv := range env {
		if !strings.HasPrefix(kv, key+"=") {
			kept = append(kept, kv)
		}
	}
	return kept
}

func (s *session) refuse(err error) {
	code := uint32(126)
	if banger.CodeOf(err) == banger.CodeCommandAbsent {
		code = 127
	}
	io.WriteString(s.channel.Stderr(), "banger: "+err.Error()+"\n")
	s.sendExit(banger.Exit{Code: int(code)})
}

// run copies the command's stdio until it has ended, and sends its exit.
func (s *session) run() {
	defer close(s.over)
	p := s.p
	s.c.wg.Go(func() { // ends with the channel, or with the command's stdin
		io.Copy(p, s.channel)
		p.EndStdin()
		io.Copy(io.Discard, s.channel)
	})
	var outputs sync.WaitGroup
	outputs.Go(func() { copyToChannel(s.channel, p.Stdout()) })
	if stderr := p.Stderr(); stderr != nil {
		outputs.Go(func() { copyToChannel(s.channel.Stderr(), stderr) })
	}
	drained := make(chan struct{})
	go func() { // ends with the pipes, which AwaitEnd ends at the latest
		outputs.Wait()
		close(drained)
	}()
	p.AwaitEnd(drained)
	s.sendExit(p.Exit())
	p.Close()
}

// copyToChannel sends what a command says on out, until that ends.
func copyToChannel(w io.Writer, out io.Reader) {
	buf := make([]byte, 32<<10) // a packet of x/crypto/ssh
	lost := false
	for {
		n, err := out.Read(buf)
		if n > 0 && !lost {
			_, werr := w.Write(buf[:n])
			lost = werr != nil // session hangs the command up; until then it must not block
		}
		if err != nil {
			return
		}
	}
}

// sendExit sends how the command ended (RFC 4254, 6.10), and ends the channel.
func (s *session) sendExit(exit banger.Exit) {
	if exit.Signal != 0 {
		name := strings.TrimPrefix(unix.SignalName(syscall.Signal(exit.Signal)), "SIG")
		s.channel.SendRequest("exit-signal", false, ssh.Marshal(struct {
			Name     string
			Core     bool
			Message  string
			Language string
		}{Name: cmp.Or(name, "KILL")}))
	} else {
		s.channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Code uint32 }{uint32(exit.Code)}))
	}
	s.channel.CloseWrite()
	s.channel.Close()
}
