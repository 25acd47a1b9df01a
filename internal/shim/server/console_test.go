package server

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger/internal/shim"
)

func TestAGuestThatPrintsForEverHoldsTwoFiles(t *testing.T) {
	dir := t.TempDir()
	c, err := openConsole(shim.ConsolePath(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	line := []byte(strings.Repeat("x", 1023) + "\n")
	for range 20 << 10 { // 20 MiB
		c.Write(line)
	}
	var total int64
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		st, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		total += st.Size()
	}
	if total > 2*shim.MaxConsole || len(files) != 2 {
		t.Errorf("the log takes %d bytes in %d files", total, len(files))
	}
}

func TestFollowShowsHistoryThenWhatComesAndEndsWithTheVM(t *testing.T) {
	c, err := openConsole(shim.ConsolePath(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	c.Write([]byte("old\nnew\n"))
	ended := make(chan struct{})
	got := make(chan string)
	var out bytes.Buffer
	first := make(chan struct{})
	go func() {
		c.follow(context.Background(), ended, 1, writerFunc(func(p []byte) (int, error) {
			if out.Len() == 0 {
				defer close(first)
			}
			return out.Write(p)
		}))
		got <- out.String()
	}()
	<-first
	c.Write([]byte("last words\n"))
	close(ended)
	if s := <-got; s != "new\nlast words\n" {
		t.Errorf("followed %q", s)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
