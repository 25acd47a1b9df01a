package sshd

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/guest"
	"banger/internal/testing/agenttest"
	"banger/internal/testing/processtest"
)

// sshGuest is an agent with a host key, and a client's key that may log in.
type sshGuest struct {
	*agenttest.Agent
	hostKey ssh.PublicKey
	user    ed25519.PrivateKey
	signer  ssh.Signer
}

func newKey(t testing.TB) (ed25519.PrivateKey, ssh.Signer) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, signer
}

func keyText(t testing.TB, key ed25519.PrivateKey) string {
	t.Helper()
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(block))
}

func startSSH(t testing.TB) *sshGuest {
	t.Helper()
	g := &sshGuest{Agent: agenttest.Start(t)}
	host, hostSigner := newKey(t)
	g.hostKey = hostSigner.PublicKey()
	g.user, g.signer = newKey(t)
	if _, err := g.Configure(processtest.WithPatience(t),
		guest.Config{Hostname: "box", SSHHostKey: keyText(t, host)}); err != nil {
		t.Fatal(err)
	}
	return g
}

func line(key ssh.PublicKey) string { return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) }

// stream opens a connection to the SSH server for the guest's one key.
func (g *sshGuest) stream(t testing.TB, r banger.SSH) net.Conn {
	t.Helper()
	if r.Keys == nil {
		r.Keys = []string{line(g.signer.PublicKey())}
	}
	conn, err := g.SSH(processtest.WithPatience(t), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// login tries to log in as the test's own user.
func (g *sshGuest) login(conn net.Conn, user string, auth ...ssh.AuthMethod) (*ssh.Client, error) {
	c, channels, requests, err := ssh.NewClientConn(conn, "box", &ssh.ClientConfig{
		User: user, Auth: auth, HostKeyCallback: ssh.FixedHostKey(g.hostKey), Timeout: processtest.Patience})
	if err != nil {
		return nil, err
	}
	return ssh.NewClient(c, channels, requests), nil
}

func (g *sshGuest) client(t testing.TB, r banger.SSH) *ssh.Client {
	t.Helper()
	c, err := g.login(g.stream(t, r), fmt.Sprint(os.Getuid()), ssh.PublicKeys(g.signer))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func newSession(t testing.TB, c *ssh.Client) *ssh.Session {
	t.Helper()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestSSHAuthorisation checks that only the keys of the request may log in, only by their
// signatures, and only as a user of the image.
func TestSSHAuthorisation(t *testing.T) {
	g := startSSH(t)
	me := fmt.Sprint(os.Getuid())
	_, stranger := newKey(t)
	for name, c := range map[string]struct {
		user string
		auth ssh.AuthMethod
		ok   bool
	}{
		"the key":      {me, ssh.PublicKeys(g.signer), true},
		"among others": {me, ssh.PublicKeys(stranger, g.signer), true},
		"another key":  {me, ssh.PublicKeys(stranger), false},
		"a password":   {me, ssh.Password(""), false},
		"keyboard": {me,
			ssh.KeyboardInteractive(func(string, string, []string, []bool) ([]string, error) { return nil, nil }), false},
		"an unknown user": {"nosuchuser", ssh.PublicKeys(g.signer), false},
		"root":            {"root", ssh.PublicKeys(g.signer), true},
	} {
		t.Run(name, func(t *testing.T) {
			client, err := g.login(g.stream(t, banger.SSH{}), c.user, c.auth)
			if err == nil {
				client.Close()
			}
			if (err == nil) != c.ok {
				t.Errorf("it ends with %v", err)
			}
		})
	}
}

func TestSSHRequestsAreChecked(t *testing.T) {
	g := startSSH(t)
	good := line(g.signer.PublicKey())
	for name, keys := range map[string][]string{
		"none": {}, "no key": {"ssh-ed25519 AAAA"}, "options": {`command="true" ` + good}, "two lines": {good + "\n" + good},
		"too many": strings.Split(strings.Repeat(good+"\n", banger.MaxSSHKeys)+good, "\n"),
		"too long": {good + strings.Repeat(" ", banger.MaxSSHKey)},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := g.SSH(processtest.WithPatience(t), banger.SSH{Keys: keys})
			if err == nil {
				conn.Close()
			}
			if banger.CodeOf(err) != banger.CodeInvalid {
				t.Errorf("it is answered with %v", err)
			}
		})
	}
	bare := agenttest.Start(t)
	if _, err := bare.SSH(processtest.WithPatience(t),
		banger.SSH{Keys: []string{good}}); banger.CodeOf(err) != banger.CodeConflict {
		t.Errorf("without a host key it is answered with %v", err)
	}
}

// TestSSHExits checks that the client gets the exit code or the signal of a command.
func TestSSHExits(t *testing.T) {
	g := startSSH(t)
	c := g.client(t, banger.SSH{})
	for command, want := range map[string]string{
		"true": "", "exit 7": "7 ", "exit 255": "255 ", "kill -TERM $$": "143 TERM", "kill -KILL $$": "137 KILL",
		"/no/such": "127 ",
	} {
		t.Run(command, func(t *testing.T) {
			err, got := newSession(t, c).Run(command), ""
			if exit, ok := errors.AsType[*ssh.ExitError](err); ok {
				got = fmt.Sprintf("%d %s", exit.ExitStatus(), exit.Signal())
			} else if err != nil {
				t.Fatal(err)
			}
			if got != want {
				t.Errorf("it is told as %q, not %q", got, want)
			}
		})
	}
}

// TestSSHStdio checks that stdin, stdout and stderr arrive complete, separate and byte for byte,
// also through a grandchild that lives longer than its parent.
func TestSSHStdio(t *testing.T) {
	g := startSSH(t)
	s := newSession(t, g.client(t, banger.SSH{}))
	in := agenttest.Noise(3 << 20)
	var out, err bytes.Buffer
	s.Stdin, s.Stdout, s.Stderr = bytes.NewReader(in), &out, &err
	if e := s.Run("sleep 1000 >&- 2>&- & echo $! >&2; cat; kill $!"); e != nil {
		t.Fatal(e)
	}
	if !bytes.Equal(out.Bytes(), in) || len(err.Bytes()) < 2 {
		t.Errorf("of %d bytes %d came back, or not the same; stderr has %q", len(in), out.Len(), err.String())
	}
}

// TestSSHShell checks that the user's shell is a login shell, and reads stdin if there is no
// terminal.
func TestSSHShell(t *testing.T) {
	g := startSSH(t)
	s := newSession(t, g.client(t, banger.SSH{}))
	var out bytes.Buffer
	s.Stdin, s.Stdout = strings.NewReader("echo \"$0 $USER $PWD\"\nexit 3\n"), &out
	if err := s.Shell(); err != nil {
		t.Fatal(err)
	}
	exit, ok := errors.AsType[*ssh.ExitError](s.Wait())
	if !ok || exit.ExitStatus() != 3 || !strings.HasPrefix(out.String(), "-") {
		t.Errorf("it says %q and ends with %v", out.String(), exit)
	}
}

// TestSSHEnvironment checks that a client can set its language and terminal, and no variable that
// changes what runs.
func TestSSHEnvironment(t *testing.T) {
	g := startSSH(t)
	s := newSession(t, g.client(t, banger.SSH{Env: []string{"FROM=image", "HOME=/nowhere"}}))
	for name, ok := range map[string]bool{"LANG": true, "LC_ALL": true, "COLORTERM": true, "LD_PRELOAD": false,
		"PATH": false, "HOME": false, "LC_A=B": false} {
		if err := s.Setenv(name, "client's"); (err == nil) != ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	out, err := s.Output(`echo "$FROM $LANG $LC_ALL $HOME ${SSH_CONNECTION:+connected}"`)
	if err != nil || !strings.HasPrefix(string(out), "image client's client's /") ||
		strings.Contains(string(out), "nowhere") || !strings.Contains(string(out), "connected") {
		t.Errorf("the command sees %q, %v", out, err)
	}
}

// TestSSHTerminal checks that a terminal has the client's size, follows its changes and has its
// type.
func TestSSHTerminal(t *testing.T) {
	g := startSSH(t)
	s := newSession(t, g.client(t, banger.SSH{}))
	if err := s.RequestPty("vt220", 33, 101, ssh.TerminalModes{}); err != nil {
		t.Fatal(err)
	}
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(`trap 'stty size; exit 5' WINCH; tty >/dev/null && echo "$TERM $(stty size) ready"
while :; do sleep 0.01; done`); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	seen := ""
	for !strings.Contains(seen, "ready") {
		n, err := out.Read(buf)
		if seen += string(buf[:n]); err != nil {
			t.Fatalf("after %q: %v", seen, err)
		}
	}
	if err := s.WindowChange(44, 122); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(out)
	if seen += string(rest); !strings.Contains(seen, "vt220 33 101 ready") || !strings.Contains(seen, "44 122") {
		t.Errorf("it shows %q", seen)
	}
	if exit, ok := errors.AsType[*ssh.ExitError](s.Wait()); !ok || exit.ExitStatus() != 5 {
		t.Errorf("it ends with %v", exit)
	}
}

// TestSSHTerminalModes checks that a new terminal has those modes of the client's terminal that
// Linux has.
func TestSSHTerminalModes(t *testing.T) {
	g := startSSH(t)
	s := newSession(t, g.client(t, banger.SSH{}))
	modes := ssh.TerminalModes{ssh.ECHO: 0, ssh.VERASE: 8, ssh.VINTR: 255, ssh.IUTF8: 1, ssh.ONLCR: 0,
		ssh.TTY_OP_OSPEED: 1, 29: 1, 159: 1 << 31}
	if err := s.RequestPty("xterm", 24, 80, modes); err != nil {
		t.Fatal(err)
	}
	out, err := s.Output("stty -a")
	for _, want := range []string{" -echo ", "erase = ^H;", "intr = <undef>;", " iutf8", " -onlcr", "isig icanon "} {
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("there is no %q, %v:\n%s", want, err, out)
		}
	}
	for _, broken := range []string{"", "\x35", "\x35\x00\x00\x00", "\x00\x35\x00\x00\x00\x00",
		"\xff\xff\xff\xff\xff\xff"} {
		termios, before := unix.Termios{Lflag: unix.ECHO}, unix.Termios{Lflag: unix.ECHO}
		if (&terminal{Modes: broken}).setModes(&termios); termios != before {
			t.Errorf("%q changes it", broken)
		}
	}
}

func TestSSHSignal(t *testing.T) {
	g := startSSH(t)
	s := newSession(t, g.client(t, banger.SSH{}))
	out, _ := s.StdoutPipe()
	if err := s.Start("trap 'exit 9' USR1; echo ready; while :; do sleep 0.01; done"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	if err := s.Signal(ssh.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	if exit, ok := errors.AsType[*ssh.ExitError](s.Wait()); !ok || exit.ExitStatus() != 9 {
		t.Errorf("it ends with %v", exit)
	}
}

// TestSSHHangsUp checks that a command gets SIGHUP when its client goes away, whether the session
// is closed or the connection breaks.
func TestSSHHangsUp(t *testing.T) {
	for name, leave := range map[string]func(net.Conn, *ssh.Session){
		"the connection breaks": func(conn net.Conn, _ *ssh.Session) { conn.Close() },
		"the session is closed": func(_ net.Conn, s *ssh.Session) { s.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			g := startSSH(t)
			conn := g.stream(t, banger.SSH{})
			c, err := g.login(conn, fmt.Sprint(os.Getuid()), ssh.PublicKeys(g.signer))
			if err != nil {
				t.Fatal(err)
			}
			f := agenttest.NewFifo(t)
			s := newSession(t, c)
			out, _ := s.StdoutPipe()
			if err := s.Start("exec 9>" + f.Path +
				"; trap 'echo hup >&9; exit' HUP; echo ready; while :; do sleep 0.01; done"); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(out, make([]byte, 6)); err != nil {
				t.Fatal(err)
			}
			leave(conn, s)
			if got := f.AwaitEnd(t); got != "hup\n" {
				t.Errorf("it says %q", got)
			}
		})
	}
}

// TestSSHHangUpSparesDaemons checks that a process in the background without the session's stdio
// stays when the client goes away, as with OpenSSH's server: an editor then finds its server again.
// A child that has any of that stdio gets SIGHUP.
func TestSSHHangUpSparesDaemons(t *testing.T) {
	g := startSSH(t)
	conn := g.stream(t, banger.SSH{})
	c, err := g.login(conn, fmt.Sprint(os.Getuid()), ssh.PublicKeys(g.signer))
	if err != nil {
		t.Fatal(err)
	}
	child, daemon, question := agenttest.NewFifo(t), agenttest.NewFifo(t), filepath.Join(t.TempDir(), "question")
	if err := syscall.Mkfifo(question, 0o600); err != nil {
		t.Fatal(err)
	}
	ask, err := os.OpenFile(question, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer ask.Close()
	s := newSession(t, c)
	if _, err := s.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, _ := s.StdoutPipe()
	started := filepath.Join(t.TempDir(), "started") // the daemon has given up the session's stdio
	if err := s.Start("{ : >" + started + "; read line <" + question + "; echo $line >" + daemon.Path +
		"; } </dev/null >/dev/null 2>&1 &\n" +
		"while [ ! -e " + started + " ]; do sleep 0.01; done\n" +
		"( exec 9>" + child.Path + "; trap 'echo hup >&9; exit' HUP; echo ready >&3; exec 3>&-\n" +
		"while [ -e " + child.Path + " ]; do sleep 0.01; done ) 3>&1 >/dev/null 2>&1; :"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if got := child.AwaitEnd(t); got != "hup\n" {
		t.Errorf("the child says %q", got)
	}
	fmt.Fprintln(ask, "still here")
	if got := daemon.AwaitEnd(t); got != "still here\n" {
		t.Errorf("the daemon says %q", got)
	}
}

// TestSFTP checks that the agent itself serves files, so the image needs no program for that.
func TestSFTP(t *testing.T) {
	g := startSSH(t)
	c, err := sftp.NewClient(g.client(t, banger.SSH{}))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	name, content := filepath.Join(t.TempDir(), "file"), agenttest.Noise(1<<20+7)
	f, err := c.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadFrom(bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := c.Chmod(name, 0o640); err != nil {
		t.Error(err)
	}
	info, err := os.Stat(name)
	if err != nil || info.Mode() != 0o640 {
		t.Errorf("it is %v, %v", info, err)
	}
	r, err := c.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes come back, or not the same: %v", len(got), err)
	}
	if err := c.Rename(name, name+"2"); err != nil {
		t.Error(err)
	}
	if err := c.Remove(name + "2"); err != nil {
		t.Error(err)
	}
	if _, err := c.Stat(name + "2"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of what is gone it says %v", err)
	}
}
