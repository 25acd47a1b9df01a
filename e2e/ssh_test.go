package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/net/proxy"
)

// echoServer is a program for a guest's perl. It prints the port on loopback on which it listens,
// and answers each line.
const echoServer = `perl -MIO::Socket::INET -e '$| = 1; $l = IO::Socket::INET->new(Listen => 5, LocalAddr => "127.0.0.1") or die;` +
	` print "listening on ", $l->sockport, "\n"; while ($c = $l->accept) { while (<$c>) { print $c "heard $_" } close $c }'`

// editor command... uses ssh as VS Code's Remote-SSH does. It starts ssh with -D and a shell
// without a terminal, sends a script on stdin, waits until the program that the script starts
// prints its port, and connects to that port through the SOCKS proxy while the shell runs. PORT in
// the command stands for a free port.
func cmdEditor(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, neg, len(args) == 0, "editor command...")
	port, cmd := withPort(ts, args)
	stdin, err := cmd.StdinPipe()
	ts.Check(err)
	stdout, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	lines := bufio.NewScanner(stdout)
	expect := func(prefix string) string {
		for lines.Scan() {
			if rest, ok := strings.CutPrefix(lines.Text(), prefix); ok {
				return rest
			}
		}
		ts.Fatalf("the shell never says %q: %v", prefix, lines.Err())
		return ""
	}
	fmt.Fprintf(stdin, "uname -s\nset -e\n%s &\n", echoServer)
	expect("Linux")
	server := expect("listening on ")
	dialer, err := proxy.SOCKS5("tcp", net.JoinHostPort("127.0.0.1", port), nil, nil)
	ts.Check(err)
	for i := range 3 {
		conn, err := dialer.Dial("tcp", net.JoinHostPort("127.0.0.1", server))
		ts.Check(err)
		talk(ts, conn, strconv.Itoa(i))
	}
	fmt.Fprintln(stdin, "echo still here; kill %1; wait; exit 4")
	expect("still here")
	io.Copy(io.Discard, stdout)
	err = cmd.Wait()
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 4 {
		ts.Fatalf("the shell ends with %v", err)
	}
}

// tunnel command... starts a command that forwards PORT to an echo server, uses the server through
// PORT, and ends the command.
func cmdTunnel(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, neg, len(args) < 1, "tunnel command...")
	port, cmd := withPort(ts, args)
	ts.Check(cmd.Start())
	defer func() {
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
	}()
	var conn net.Conn
	if !poll(time.Minute, func() (ok bool) {
		var err error
		conn, err = net.Dial("tcp", net.JoinHostPort("127.0.0.1", port))
		return err == nil
	}) {
		ts.Fatalf("nothing listens")
	}
	talk(ts, conn, "through")
}

// withPort prepares a command in which PORT stands for a free port.
func withPort(ts *testscript.TestScript, args []string) (string, *exec.Cmd) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	ts.Defer(cancel)
	words := make([]string, len(args))
	for i, a := range args {
		words[i] = strings.ReplaceAll(a, "PORT", port)
	}
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Env = append(os.Environ(), theWorld(ts).env()...)
	cmd.Env = append(cmd.Env, "HOME="+ts.Getenv("HOME"))
	cmd.Dir, cmd.Stderr = ts.MkAbs("."), os.Stderr
	return port, cmd
}

func talk(ts *testscript.TestScript, conn net.Conn, word string) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	_, err := fmt.Fprintln(conn, word)
	ts.Check(err)
	answer, err := bufio.NewReader(conn).ReadString('\n')
	ts.Check(err)
	if answer != "heard "+word+"\n" {
		ts.Fatalf("the echo server says %q", answer)
	}
}
