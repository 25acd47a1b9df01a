package screen

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
)

// timeout is when a test gives up waiting for a program.
const timeout = 10 * time.Second

// step waits until a program has written a text, and then types.
type step struct{ await, keys string }

// record runs a program on a terminal of 24 rows and 80 columns. It returns what the program has written when the last
// step is done. The program does not end before.
func record(t *testing.T, dir, name string, args []string, env []string, steps []step) []byte {
	t.Helper()
	c := exec.Command(name, args...)
	c.Dir = dir
	c.Env = append(os.Environ(), append([]string{"LC_ALL=C.UTF-8", "HOME=" + dir}, env...)...)
	terminal, err := pty.StartWithSize(c, &pty.Winsize{Rows: 24, Cols: 80})
	if err != nil {
		t.Fatal(err)
	}
	end := func() { syscall.Kill(-c.Process.Pid, syscall.SIGKILL) } // all that the program started
	late := time.AfterFunc(timeout, end)
	t.Cleanup(func() {
		late.Stop()
		end()
		c.Wait()
		terminal.Close()
	})
	var all []byte
	for _, s := range steps {
		from := len(all)
		for !bytes.Contains(all[from:], []byte(s.await)) {
			buf := make([]byte, 4096)
			n, err := terminal.Read(buf)
			if all = append(all, buf[:n]...); err != nil {
				t.Fatalf("%s did not write %q: %v; at last it wrote %q", name, s.await, err,
					all[max(0, len(all)-200):])
			}
		}
		if _, err := terminal.WriteString(s.keys); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// server is a tmux that shows streams.
type server struct {
	t   *testing.T
	dir string
	n   int
}

func startTmux(t *testing.T) *server {
	t.Helper()
	s := &server{t: t, dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(s.dir, "conf"), []byte("set -g status off\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.command("kill-server").Run() })
	return s
}

func (s *server) command(args ...string) *exec.Cmd {
	c := exec.Command("tmux", append([]string{"-u", "-L", "screen", "-f", filepath.Join(s.dir, "conf")}, args...)...)
	c.Env = append(os.Environ(), "TMUX=", "TMUX_TMPDIR="+s.dir, "LC_ALL=C.UTF-8", "SHELL=/bin/sh")
	return c
}

func (s *server) run(args ...string) string {
	s.t.Helper()
	out, err := s.command(args...).Output()
	var failed *exec.ExitError
	if errors.As(err, &failed) {
		s.t.Fatalf("tmux %v: %v: %s", args, err, failed.Stderr)
	} else if err != nil {
		s.t.Fatalf("tmux (scripts/deps installs it): %v", err)
	}
	return string(out)
}

// show returns what tmux shows of a stream, with all attributes, the cursor and the modes that it knows.
func (s *server) show(rows, cols int, stream []byte) string {
	s.t.Helper()
	s.n++
	name := fmt.Sprint("show", s.n)
	file := filepath.Join(s.dir, name)
	marked := append(bytes.Clone(stream), "\x1b]2;"+name+"\x1b\\"...)
	if err := os.WriteFile(file, marked, 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.run("new-session", "-d", "-s", name, "-x", fmt.Sprint(cols), "-y", fmt.Sprint(rows),
		"stty raw -echo; cat "+file+"; exec sleep 1000")
	pane := name + ":0.0"
	for until := time.Now().Add(timeout); strings.TrimSpace(s.run("display-message", "-t", pane, "-p",
		"#{pane_title}")) != name; {
		if time.Now().After(until) {
			s.t.Fatal("tmux did not read the stream")
		}
	}
	state := s.run("display-message", "-t", pane, "-p", "cursor #{cursor_x},#{cursor_y} shown #{cursor_flag} "+
		"region #{scroll_region_upper},#{scroll_region_lower} alternate #{alternate_on} insert #{insert_flag} "+
		"keys #{keypad_cursor_flag} keypad #{keypad_flag} wrap #{wrap_flag} origin #{origin_flag} "+
		"mouse #{mouse_standard_flag}#{mouse_button_flag}#{mouse_all_flag}#{mouse_sgr_flag}#{mouse_utf8_flag}")
	return canonical(s.run("capture-pane", "-t", pane, "-p", "-e", "-N"), cols) + state
}

// canonical returns a capture as each character with its style, without blank places at the ends of lines. Tmux has
// several ways to say the same, and does not tell the colour of what was erased there.
func canonical(capture string, cols int) string {
	term := newTerminal(2, cols)
	var b strings.Builder
	for line := range strings.Lines(capture) {
		term.write([]byte("\x1b[H\x1b)0" + strings.TrimSuffix(line, "\n")))
		now := ""
		row := term.grid.row(0)
		for len(row) > 0 && row[len(row)-1] == (cell{text: " ", style: row[len(row)-1].style.blank(), width: 1}) {
			row = row[:len(row)-1]
		}
		for _, c := range row {
			if sgr := c.style.sgr(); sgr != now {
				b.WriteString("<" + sgr[2:] + ">")
				now = sgr
			}
			b.WriteString(c.text)
		}
		b.WriteByte('\n')
		pen := term.style
		term.reset()
		term.style = pen
	}
	return b.String()
}

// compare checks that tmux shows a drawing as it shows the stream itself, now and after more output.
func (s *server) compare(t *testing.T, rows, cols int, stream []byte) {
	t.Helper()
	s.t = t
	screen := open(t, uint16(rows), uint16(cols))
	screen.Append(stream, uint64(len(stream)))
	drawing, _ := screen.Draw(uint16(rows), uint16(cols))
	more := ""
	for range 2 {
		want := s.show(rows, cols, append(bytes.Clone(stream), more...))
		before := "dirty\x1b[?1049h\x1b[41m\x1b[3;5r\x1b[?6h\x1b[4h\x1b)0\x0edirty"
		got := s.show(rows, cols, []byte(before+string(drawing)+more))
		if got != want {
			t.Errorf("with %q behind it, tmux shows the drawing as\n%s\ninstead of\n%s\nthe end of the stream is %q", more, got,
				want, stream[max(0, len(stream)-200):])
		}
		more = "more\x1b[Dx\r\n\x1b(Bend"
		if bytes.Contains(stream, []byte("\x1b7")) { // tmux saves the cursor of the main screen in another place
			more = "more\x1b8\x1b[Dx\r\n\x1b(Bend"
		}
		if strings.Contains(want, "alternate 1") {
			more = "more\x1b[?1049lback" + more
		}
	}
}

func TestRealProgramsLookTheSameInTmux(t *testing.T) {
	dir := t.TempDir()
	var file strings.Builder
	for i := range 200 {
		fmt.Fprintf(&file, "int line%d = %d; // 世界 é \x1b[3%dmcolour\x1b[0m %s\n", i, i, i%8, strings.Repeat("long ", i%20))
	}
	if err := os.WriteFile(filepath.Join(dir, "file.c"), []byte(file.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	bash := []string{"--norc", "--noprofile", "-i"}
	colours := "for i in 1 3 4 7 31 42 95 '38;5;99' '38;2;9;8;7'; do printf \"\\e[${i}m%s \\e[0m\" $i; done; echo e''nd1\n"
	s := startTmux(t)
	for name, test := range map[string]struct {
		program string
		args    []string
		steps   []step
	}{
		"vi": {"vi", []string{"-n", "-u", "NONE", "file.c"}, []step{{"line9 ", "Go"}, {"199", "new text\x1b"},
			{"text", ":set number\r"}, {"201", "50Gdd:set list\rO"}, {"$", "inserted"}, {"inserted", ""}}},
		"vi has ended": {"sh", []string{"-c", "echo before; vi -n -u NONE file.c; echo after; exec sleep 1000"},
			[]step{{"line9 ", ":q!\r"}, {"after", ""}}},
		"top": {"top", []string{"-d", "0.1"}, []step{{"PID", "z"}, {"PID", ""}, {"PID", ""}}},
		"less": {"less", []string{"-R", "file.c"}, []step{{"line9 ", " "}, {"line24 ", "/line55\r"}, {"line58 ", "k"},
			{"long", ""}}},
		"a shell": {"bash", bash, []step{{"bash-", "PS1='\\[\\e[1;32m\\]prompt\\[\\e[0m\\]> '\n"}, {"prompt", colours},
			{"end1", "seq 100; ls --color=always / /dev\n"}, {"prompt", "typed \x01a\x1bf\x0b"}, {"typed ", ""}}},
	} {
		for _, terminal := range []string{"xterm-256color", "screen-256color", "linux"} {
			t.Run(name+" on "+terminal, func(t *testing.T) {
				s.compare(t, 24, 80, record(t, dir, test.program, test.args, []string{"TERM=" + terminal}, test.steps))
			})
		}
	}
}

// otherInTmux are the streams whose meaning tmux does not share with xterm, and why.
var otherInTmux = map[string]string{
	"reset":            "tmux stays on the alternate screen",
	"soft reset":       "tmux does not know it",
	"half deleted":     "tmux keeps the other half",
	"half a character": "tmux leaves it out",

	"alternate in a pen":  "tmux does not give the alternate screen the colour of the pen",
	"the British charset": "tmux does not know it",
}

func TestStreamsLookTheSameInTmux(t *testing.T) {
	s := startTmux(t)
	for name, stream := range streams {
		if otherInTmux[name] != "" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			if strings.HasPrefix(name, "half a ") || name == "an ESC" {
				stream += "\x1b\\" // so that tmux sees the mark behind it
			}
			s.compare(t, 6, 20, []byte(stream))
		})
	}
}
