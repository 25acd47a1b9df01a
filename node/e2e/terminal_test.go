//go:build cluster

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/creack/pty"
)

// terminal runs kubectl on a terminal of 30 by 90, and returns its exit code and what the terminal was sent.
func (w *world) terminal(args ...string) string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.program("kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+w.ca.file("admin.conf"), "HOME="+w.dir)
	f, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 30, Cols: 90})
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	out, _ := io.ReadAll(f) // which ends with an error of the terminal
	err = cmd.Wait()
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	}
	text, _, _ := strings.Cut(string(out), "command terminated")
	return fmt.Sprintf("exit %d: %s", code, text)
}

// forwarded checks that a port of a Pod can be reached through kubectl port-forward.
func (w *world) forwarded(name string) {
	w.t.Helper()
	w.kubectl("exec", name, "--", "sh", "-c", `perl -MIO::Socket -e '
		my $s = IO::Socket::INET->new(LocalPort => 8080, Listen => 5, ReuseAddr => 1) or die;
		while (my $c = $s->accept) { my $line = <$c>; print $c "you said $line"; close $c }' >/dev/null 2>&1 &
		until grep -q :1F90 /proc/net/tcp; do sleep 0.1; done`)
	port := freePort(w.t)
	p := w.start("forward", []string{"KUBECONFIG=" + w.ca.file("admin.conf")}, w.program("kubectl"), "port-forward",
		"pod/"+name, fmt.Sprintf("%d:8080", port))
	defer p.kill()
	w.eventually("the port is forwarded", func() error {
		conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintln(conn, "this")
		got, err := io.ReadAll(conn)
		if err == nil && string(got) != "you said this\n" {
			err = fmt.Errorf("it says %q", got)
		}
		return err
	})
}

// followed checks that kubectl logs -f shows what a Pod writes from then on.
func (w *world) followed(name string) {
	w.t.Helper()
	p := w.start("follow", []string{"KUBECONFIG=" + w.ca.file("admin.conf")}, w.program("kubectl"), "logs", "-f", name)
	defer p.kill()
	shown := func(want string) {
		w.t.Helper()
		w.eventually("logs -f shows "+want, func() error {
			text, err := os.ReadFile(filepath.Join(w.dir, "follow.log"))
			if err == nil && !strings.Contains(string(text), want) {
				err = fmt.Errorf("it shows %q", text)
			}
			return err
		})
	}
	shown("late\n")
	w.kubectl("exec", name, "--", "touch", "/go")
	shown("gone\n")
}
