package web

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"banger"
)

// TestMain also runs the process of the UI, whose arguments are the runtime directory and the version that it says.
func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == "webui" {
		ready := os.NewFile(3, "ready")
		banger.Version = os.Args[3]
		s := &Server{Files: fstest.MapFS{"index.html": {Data: []byte("the page")}}, Log: slog.New(slog.DiscardHandler)}
		err := s.Run(context.Background(), os.Args[2], func() { fmt.Fprintln(ready, "ready"); ready.Close() })
		if err != nil {
			fmt.Fprint(ready, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestTheProcessOutlivesItsLauncher opens the UI from two launchers, as from two daemons one after the other: it is the
// same process. One of another version takes its place. Its end closes the port.
func TestTheProcessOutlivesItsLauncher(t *testing.T) {
	dir := t.TempDir()
	launcher := func(version string) *Launcher {
		return &Launcher{RunDir: dir, Argv: []string{"/proc/self/exe", "webui", dir, version}}
	}
	open := func(l *Launcher) (host, token string) {
		t.Helper()
		o, err := l.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		at, err := url.Parse(o.URL)
		if err != nil {
			t.Fatal(err)
		}
		return at.Host, at.Fragment
	}
	old := launcher("older")
	t.Cleanup(func() { old.Close(context.Background()) })
	before, _ := open(old)
	first, token := open(launcher(banger.Version))
	second, another := open(launcher(banger.Version))
	if first == before || first != second || token == another {
		t.Errorf("the addresses are %s, then %s#%s and %s#%s", before, first, token, second, another)
	}
	if _, err := http.Get("http://" + before); err == nil {
		t.Error("the process of another version still answers")
	}
	if err := old.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := http.Get("http://" + first); err == nil {
		t.Error("the UI answers after its end")
	}
	if err := old.Close(t.Context()); err != nil {
		t.Errorf("closing it again: %v", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("there remain %v, %v", left, err)
	}
}

// TestAProcessThatCannotStartSaysWhy checks the error.
func TestAProcessThatCannotStartSaysWhy(t *testing.T) {
	l := &Launcher{RunDir: "/nonexistent", Argv: []string{"/proc/self/exe", "webui", "/nonexistent", ""}}
	if _, err := l.Open(t.Context()); err == nil || !strings.Contains(err.Error(), "does not start: ") {
		t.Errorf("the error is %v", err)
	}
}
