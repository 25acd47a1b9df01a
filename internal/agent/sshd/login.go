package sshd

import (
	"strings"

	"golang.org/x/sys/unix"

	"banger/internal/agent/command"
)

// login is what a user's line of passwd says for a login.
type login struct{ name, home, shell string }

// loginOf finds the line of the user called name. An image may have no such line, no
// shell in it, or a shell that does not exist; then login.shell is /bin/sh or "".
func loginOf(name string, user command.User) login {
	name, _, _ = strings.Cut(name, ":")
	name, shell := command.Passwd(name)
	l := login{name: name, home: user.Home}
	if l.name == "" && user.UID == 0 {
		l.name = "root"
	}
	for _, candidate := range []string{shell, "/bin/sh"} {
		if isProgram(candidate) {
			l.shell = candidate
			break
		}
	}
	return l
}

// isProgram reports whether an absolute path leads to a file that can be executed.
func isProgram(path string) bool {
	var st unix.Stat_t
	return strings.HasPrefix(path, "/") && unix.Stat(path, &st) == nil &&
		st.Mode&unix.S_IFMT == unix.S_IFREG && st.Mode&0o111 != 0
}

// dir returns where a login begins: in the home directory, or in / if that does not
// exist.
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
