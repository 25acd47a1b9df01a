package banger

import (
	"strings"
	"testing"
)

func TestFileRequestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		r  FileRequest
		ok bool
	}{
		"a path":            {FileRequest{Op: FileStat, Path: []byte("/etc")}, true},
		"odd bytes":         {FileRequest{Op: FileExtract, Path: []byte("a\xff\nb")}, true},
		"longest path":      {FileRequest{Op: FileStat, Path: []byte(strings.Repeat("a", MaxPath))}, true},
		"path too long":     {FileRequest{Op: FileStat, Path: []byte(strings.Repeat("a", MaxPath+1))}, false},
		"no path":           {FileRequest{Op: FileStat}, false},
		"NUL":               {FileRequest{Op: FileStat, Path: []byte("a\x00")}, false},
		"unknown operation": {FileRequest{Op: "rename", Path: []byte("a")}, false},
		"a name":            {FileRequest{Op: FileArchive, Path: []byte("a"), Name: []byte("b")}, true},
		"content":           {FileRequest{Op: FileArchive, Path: []byte("a"), Name: []byte(".")}, true},
		"no name":           {FileRequest{Op: FileArchive, Path: []byte("a")}, false},
		"the parent":        {FileRequest{Op: FileArchive, Path: []byte("a"), Name: []byte("..")}, false},
		"name with a slash": {FileRequest{Op: FileArchive, Path: []byte("a"), Name: []byte("a/b")}, false},
	} {
		t.Run(name, func(t *testing.T) { wantInvalid(t, c.r.Check(), c.ok) })
	}
}

func TestARelativePathStartsAtTheWorkingDirectory(t *testing.T) {
	for _, c := range [][3]string{{"/srv", "a", "/srv/a"}, {"srv", "a/", "/srv/a/"}, {"", "a/.", "/a/."}, {"/", ".", "/."},
		{"/srv", "/a", "/a"}, {"/srv", "../a", "/srv/../a"}} {
		r := FileRequest{Path: []byte(c[1])}
		if r.Resolve(c[0]); string(r.Path) != c[2] {
			t.Errorf("%q in %q is %q, not %q", c[1], c[0], r.Path, c[2])
		}
	}
}
