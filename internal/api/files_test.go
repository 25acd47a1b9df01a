package api_test

import (
	"context"
	"log/slog"
	"net"
	"reflect"
	"testing"

	"banger"
	"banger/internal/api"
	"banger/internal/api/client"
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
