package account

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"banger"
	"banger/internal/cli/command"
	"banger/internal/cli/render"
	"banger/internal/credential"
)

// maxPassword is the longest password that is read, in bytes.
const maxPassword = 64 << 10

func isTerminal(a *command.App) bool {
	return render.IsTerminal(a.Stdin) && render.IsTerminal(a.Stderr)
}

// complete returns the login that the flags say, and asks for what they leave out.
func (o loginOptions) complete(ctx context.Context, a *command.App, at place) (l credential.Login, err error) {
	l = credential.Login{Username: o.user, Password: o.password}
	if o.stdin {
		if l.Password, err = passwordFrom(a.Stdin); err != nil {
			return l, err
		}
	}
	asks := l.Username == "" || l.Password == "" && !o.given && !o.stdin
	if asks && !isTerminal(a) {
		return l, banger.Errorf(banger.CodeInvalid, "the login needs a user and a password, and stdin is no terminal").
			WithHint("give them: banger login -u USER --password-stdin %s < FILE", at.shown)
	}
	if l.Username == "" {
		if l.Username, err = prompt(ctx, a, "Username: ", false); err != nil {
			return l, err
		}
	}
	if l.Password == "" && !o.given && !o.stdin {
		if l.Password, err = prompt(ctx, a, "Password: ", true); err != nil {
			return l, err
		}
	}
	if l.Username == "" || l.Password == "" {
		return l, banger.Errorf(banger.CodeInvalid, "the user or the password is empty")
	}
	return l, nil
}

// passwordFrom reads a password without the line end behind it.
func passwordFrom(in io.Reader) (string, error) {
	data, err := io.ReadAll(io.LimitReader(in, maxPassword+1))
	if err != nil || len(data) > maxPassword {
		return "", banger.Errorf(banger.CodeInvalid, "stdin has no password of at most %s", banger.FormatSize(maxPassword))
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r"), nil
}

// prompt asks a question on the terminal, which does not show a hidden answer. Ctrl-C ends it. The terminal is then as
// it was.
func prompt(ctx context.Context, a *command.App, question string, hidden bool) (string, error) {
	fd := int(a.Stdin.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err == nil && hidden {
		silent := *before
		silent.Lflag &^= unix.ECHO
		err = unix.IoctlSetTermios(fd, unix.TCSETS, &silent)
		defer func() {
			unix.IoctlSetTermios(fd, unix.TCSETS, before)
			fmt.Fprintln(a.Stderr) // for the line end that the terminal did not show
		}()
	}
	if err != nil {
		return "", banger.Errorf(banger.CodeInvalid, "this terminal cannot be asked").WithHint("use --password-stdin")
	}
	fmt.Fprint(a.Stderr, question)
	type answer struct {
		text string
		err  error
	}
	answered := make(chan answer, 1)
	go func() { // ends with the next line of the terminal, or with the process
		text, err := readLine(a.Stdin)
		answered <- answer{text, err}
	}()
	select {
	case got := <-answered:
		if got.err != nil {
			return "", banger.Errorf(banger.CodeCanceled, "the login was given up")
		}
		return strings.TrimRight(got.text, "\r\n"), nil
	case <-ctx.Done():
		if !hidden {
			fmt.Fprintln(a.Stderr)
		}
		return "", banger.Canceled(ctx.Err())
	}
}

// readLine reads one line and nothing behind it.
func readLine(f *os.File) (string, error) {
	var line []byte
	for one := make([]byte, 1); len(line) < maxPassword; line = append(line, one[0]) {
		if _, err := f.Read(one); err != nil {
			return "", err
		}
		if one[0] == '\n' {
			break
		}
	}
	return string(line), nil
}
