package agent

import (
	"cmp"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"banger"
)

// maxSSHEnv bounds the variables that a client may set for one command.
const maxSSHEnv = 128

// sshSession is one session channel: at most one command.
type sshSession struct {
	c       *sshConnection
	channel ssh.Channel
	env     []string
	pty     *sshTerminal
	p       *process // nil until a command runs
	begun   bool
	over    chan struct{} // closed when the command's end was told
}

func (c *sshConnection) session(n ssh.NewChannel) {
	channel, requests, err := n.Accept()
	if err != nil {
		return
	}
	s := &sshSession{c: c, channel: channel, over: make(chan struct{})}
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
		s.p.hangUp()
		<-s.over
	}
	channel.Close()
}

// handle obeys one request and reports whether it could.
func (s *sshSession) handle(r *ssh.Request) bool {
	switch r.Type {
	case "env":
		return s.setEnv(r.Payload)
	case "pty-req":
		t := new(sshTerminal)
		if s.begun || ssh.Unmarshal(r.Payload, t) != nil || len(t.Term) > 256 || strings.IndexByte(t.Term, 0) >= 0 {
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
		return err == nil && s.p.signal(syscall.Signal(sig)) == nil
	case "auth-agent-req@openssh.com":
		return s.c.forwardAgent() == nil
	case "shell", "exec", "subsystem":
		return s.begin(r)
	}
	return false
}

// setEnv takes the variables of a client's language and terminal; all others could
// change what a command does.
func (s *sshSession) setEnv(payload []byte) bool {
	var v struct{ Name, Value string }
	if ssh.Unmarshal(payload, &v) != nil || len(s.env) >= maxSSHEnv || strings.ContainsAny(v.Name+v.Value, "\x00") {
		return false
	}
	if v.Name != "LANG" && v.Name != "TERM" && v.Name != "COLORTERM" && !strings.HasPrefix(v.Name, "LC_") || strings.Contains(v.Name, "=") {
		return false
	}
	s.env = append(s.env, v.Name+"="+v.Value)
	return true
}

func (s *sshSession) resize(payload []byte) bool {
	var w struct{ Cols, Rows, Width, Height uint32 }
	if ssh.Unmarshal(payload, &w) != nil || s.pty == nil {
		return false
	}
	s.pty.Cols, s.pty.Rows = w.Cols, w.Rows
	return s.p == nil || s.p.resize(s.pty.size()) == nil
}

// begin starts the session's command. A command that cannot be started is none of
// SSH's errors: its client is told on stderr, as by a shell.
func (s *sshSession) begin(r *ssh.Request) bool {
	var arg struct{ Text string }
	if s.begun || r.Type != "shell" && ssh.Unmarshal(r.Payload, &arg) != nil || r.Type == "subsystem" && arg.Text != "sftp" {
		return false
	}
	login := loginOf(s.c.user, s.c.id)
	e := banger.Exec{User: s.c.user, Dir: login.dir(), Env: s.environment(login), Stdin: true}
	how, err := manner{}, error(nil)
	if s.pty != nil && r.Type != "subsystem" {
		e.TTY = true
		e.Rows, e.Cols = s.pty.size()
		how.modes = s.pty.setModes
	}
	switch {
	case r.Type == "subsystem":
		e.Args, how.helper = []string{selfProgram, sftpArgument}, true
	case login.shell == "" && r.Type == "shell":
		err = banger.Errorf(banger.CodeCommandAbsent, "this image has no shell (give a command: its words are then run as they are)")
	case login.shell == "":
		e.Args = splitWords(arg.Text)
	case r.Type == "shell":
		how.file, e.Args = login.shell, []string{"-" + login.shell[strings.LastIndexByte(login.shell, '/')+1:]}
	default:
		e.Args = []string{login.shell, "-c", arg.Text}
	}
	if err == nil {
		s.p, err = s.c.s.launchAs(&e, how)
	}
	if err == nil && !e.TTY {
		s.p.spareDaemons()
	}
	if err != nil {
		s.begun = true
		s.c.wg.Go(func() { s.refuse(err) })
	}
	return true
}

// environment is what a command gets: the image's and the VM's variables, the
// user's, and those that the client may set.
func (s *sshSession) environment(login login) []string {
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
	set("SSH_CONNECTION", "0.0.0.0 0 0.0.0.0 22") // there are no addresses, but programs ask whether it is there
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

func (s *sshSession) refuse(err error) {
	code := uint32(126)
	if banger.CodeOf(err) == banger.CodeCommandAbsent {
		code = 127
	}
	io.WriteString(s.channel.Stderr(), "banger: "+err.Error()+"\n")
	s.tellExit(banger.Exit{Code: int(code)})
}

// run copies the command's stdio until it has ended, and tells how.
func (s *sshSession) run() {
	defer close(s.over)
	p := s.p
	s.c.wg.Go(func() { // ends with the channel, or with the command's stdin
		io.Copy(stdinOf{p}, s.channel)
		(&execution{p: p}).endStdin()
		io.Copy(io.Discard, s.channel)
	})
	var outputs sync.WaitGroup
	outputs.Go(func() { copyToChannel(s.channel, p.stdout) })
	if p.stderr != nil {
		outputs.Go(func() { copyToChannel(s.channel.Stderr(), p.stderr) })
	}
	drained := make(chan struct{})
	go func() { // ends with the pipes, which are stopped below at the latest
		outputs.Wait()
		close(drained)
	}()
	<-p.done
	select {
	case <-drained:
	case <-time.After(drainTime):
		(&execution{p: p}).stopOutput()
		<-drained
	}
	s.tellExit(p.exit)
	p.closeStdio()
}

// stdinOf writes to a command's stdin.
type stdinOf struct{ p *process }

func (w stdinOf) Write(b []byte) (int, error) { return w.p.stdin.Write(b) }

// copyToChannel sends what f gives until it ends or stopOutput was called; what is in
// the pipe then is still sent.
func copyToChannel(w io.Writer, f *os.File) {
	buf := make([]byte, 32<<10) // a packet of x/crypto/ssh
	left := -1                  // once stopped: what may still be taken
	lost := false
	for left != 0 {
		n, err := f.Read(buf)
		if n > 0 && !lost {
			_, werr := w.Write(buf[:n])
			lost = werr != nil // the command is hung up for it elsewhere; until then it must not block
		}
		if left > 0 && n > 0 {
			left = max(left-n, 0)
			f.SetReadDeadline(time.Now().Add(drainTime / 10))
		}
		if left < 0 && errors.Is(err, os.ErrDeadlineExceeded) {
			left, err = pipeSize, f.SetReadDeadline(time.Now().Add(drainTime/10))
		}
		if err != nil {
			return
		}
	}
}

// tellExit ends the channel with how the command ended (RFC 4254, 6.10).
func (s *sshSession) tellExit(exit banger.Exit) {
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

// login is what a user's line of passwd says for a login.
type login struct{ name, home, shell string }

// loginOf finds the user's line. An image may have none, no shell, or one that is
// not there.
func loginOf(user string, id identity) login {
	l := login{home: id.home}
	shell := ""
	user, _, _ = strings.Cut(user, ":")
	eachEntry("/etc/passwd", 7, func(f []string) bool {
		if f[0] != user && f[2] != user {
			return false
		}
		l.name, shell = f[0], f[6]
		return true
	})
	if l.name == "" && id.uid == 0 {
		l.name = "root"
	}
	for _, candidate := range []string{shell, "/bin/sh"} {
		var st unix.Stat_t
		if strings.HasPrefix(candidate, "/") && unix.Stat(candidate, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Mode&0o111 != 0 {
			l.shell = candidate
			break
		}
	}
	return l
}

// dir is where a login begins: the home directory when it is there.
func (l login) dir() string {
	var st unix.Stat_t
	if strings.HasPrefix(l.home, "/") && unix.Stat(l.home, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return l.home
	}
	return "/"
}

// splitWords splits a command line where there is no shell to do it: at spaces, but
// for quotes and backslashes.
func splitWords(line string) []string {
	words := []string{}
	word, open, quote := strings.Builder{}, false, byte(0)
	for i := 0; i < len(line); i++ {
		ch := line[i]
		switch {
		case quote == 0 && strings.IndexByte(" \t\n", ch) >= 0:
			if open {
				words, open = append(words, word.String()), false
				word.Reset()
			}
			continue
		case quote == 0 && (ch == '\'' || ch == '"'):
			quote = ch
		case quote == ch:
			quote = 0
		case ch == '\\' && quote != '\'' && i+1 < len(line):
			i++
			word.WriteByte(line[i])
		default:
			word.WriteByte(ch)
		}
		open = true
	}
	if open {
		words = append(words, word.String())
	}
	return words
}
