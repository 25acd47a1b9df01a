package api_test

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"banger"
	"banger/internal/api"
	"banger/internal/api/client"
	"banger/internal/frame"
	"banger/internal/testing/apitest"
)

// guests notes the file requests that come, and refuses them.
type guests struct {
	api.Guests
	got banger.FileRequest
}

func (g *guests) Files(_ context.Context, _ string, r banger.FileRequest) (net.Conn, error) {
	g.got = r
	return nil, banger.Errorf(banger.CodeGuest, "no")
}

func (g *guests) StatFile(_ context.Context, _ string, r banger.FileRequest) (banger.FileInfo, error) {
	g.got = r
	return banger.FileInfo{}, nil
}

// TestAFileRequestSurvivesItsAddress: a path of a VM may contain any byte, and every field of a request survives the
// coding as a URL.
func TestAFileRequestSurvivesItsAddress(t *testing.T) {
	g := &guests{}
	s := &api.Server{Guests: g, Log: slog.New(slog.DiscardHandler)}
	c := client.New(apitest.Serve(t, s.Handler().ServeHTTP))
	for _, r := range []banger.FileRequest{
		{Op: banger.FileStat, Path: []byte("/etc")},
		{Op: banger.FileArchive, Path: []byte("a b\xff\n&=%+?#/é"), Name: []byte("\xfe ;"), Follow: true, NoXattrs: true},
		{Op: banger.FileExtract, Path: []byte("dir/."), Into: true, Owners: true},
	} {
		g.got = banger.FileRequest{}
		var err error
		if r.Op == banger.FileStat {
			_, err = c.StatFile(t.Context(), "box", r)
		} else if _, err = c.Files(t.Context(), "box", r); banger.CodeOf(err) == banger.CodeGuest {
			err = nil
		}
		if len(g.got.Name) == 0 {
			g.got.Name = nil
		}
		if err != nil || !reflect.DeepEqual(g.got, r) {
			t.Errorf("%+v became %+v, %v", r, g.got, err)
		}
	}
}

// tree is guests with one file or directory, which answer with the frames that a test gives them.
type tree struct {
	api.Guests
	mode   uint32
	frames []byte
}

func (g *tree) StatFile(context.Context, string, banger.FileRequest) (banger.FileInfo, error) {
	return banger.FileInfo{Mode: g.mode}, nil
}

func (g *tree) Files(context.Context, string, banger.FileRequest) (net.Conn, error) {
	here, there := net.Pipe()
	go func() { // ends with the frames, or when nobody reads them
		there.Write(g.frames)
		there.Close()
	}()
	return here, nil
}

// frames returns a tar with one file as the agent sends it.
func frames(t *testing.T, content string) []byte {
	t.Helper()
	var tarred, sent bytes.Buffer
	w := tar.NewWriter(&tarred)
	err := w.WriteHeader(&tar.Header{Name: "a", Size: int64(len(content)), Mode: 0o600, Typeflag: tar.TypeReg})
	if err == nil {
		_, err = io.WriteString(w, content)
	}
	if err == nil {
		err = w.Close()
	}
	if err == nil {
		_, err = frame.Data(&sent, frame.Stdout).Write(tarred.Bytes())
	}
	if err == nil {
		err = frame.Write(&sent, frame.Exit, []byte("{}"))
	}
	if err != nil {
		t.Fatal(err)
	}
	return sent.Bytes()
}

// TestContentIsSaved checks that a browser saves what a guest has, and shows none of it as a page.
func TestContentIsSaved(t *testing.T) {
	const page, bytesType = "<script>alert(1)</script>", "application/octet-stream"
	whole := frames(t, page)
	for name, c := range map[string]struct {
		guest             tree
		path, kind, saved string
	}{
		"a file":      {tree{mode: 0o100644, frames: whole}, "/a\"\n/é.html", bytesType, "filename*=utf-8''%C3%A9.html"},
		"no text":     {tree{mode: 0o100644, frames: whole}, "/a\xff", bytesType, "filename*=utf-8''a%FF"},
		"a directory": {tree{mode: 0o40755, frames: whole}, "/etc/", "application/x-tar", "filename=etc.tar"},
		"the root":    {tree{mode: 0o40755, frames: whole}, "/", "application/x-tar", "filename=root.tar"},
	} {
		w := httptest.NewRecorder()
		s := &api.Server{Guests: &c.guest, Log: slog.New(slog.DiscardHandler)}
		s.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/v1/vms/box/files/content?path="+url.QueryEscape(c.path), nil))
		h := w.Header()
		if w.Code != 200 || h.Get("Content-Type") != c.kind || h.Get("Content-Disposition") != "attachment; "+c.saved ||
			!strings.Contains(h.Get("Content-Security-Policy"), "sandbox") {
			t.Errorf("%s: %d %v", name, w.Code, h)
		}
		isFile := c.guest.mode&0o100000 != 0
		if isFile != (w.Body.String() == page) || isFile != (h.Get("Content-Length") == "25") {
			t.Errorf("%s has %q", name, w.Body)
		}
	}
}

// TestContentThatFailsIsNotWhole: what fails in the middle breaks the connection, and what fails before says why.
func TestContentThatFailsIsNotWhole(t *testing.T) {
	whole := frames(t, strings.Repeat("x", 2000))
	var cut bytes.Buffer
	frame.Data(&cut, frame.Stdout).Write(whole[frame.Header : frame.Header+1000])
	frame.Write(&cut, frame.Error, []byte(`{"code":"guest"}`))
	for name, g := range map[string]*tree{
		"a file":      {mode: 0o100644, frames: cut.Bytes()},
		"a directory": {mode: 0o40755, frames: cut.Bytes()},
	} {
		s := &api.Server{Guests: g, Log: slog.New(slog.DiscardHandler)}
		srv := httptest.NewServer(s.Handler())
		resp, err := http.Get(srv.URL + "/v1/vms/box/files/content?path=/a")
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		if err == nil {
			t.Errorf("%s: the answer seems whole", name)
		}
		srv.Close()
	}
	w := httptest.NewRecorder()
	s := &api.Server{Guests: &tree{mode: 0o10600}, Log: slog.New(slog.DiscardHandler)}
	s.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/v1/vms/box/files/content?path=/pipe", nil))
	if w.Code != 400 || !strings.Contains(w.Body.String(), "neither a file nor a directory") {
		t.Errorf("a pipe: %d %s", w.Code, w.Body)
	}
}
