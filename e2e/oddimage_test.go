package e2e

import (
	"archive/tar"
	"fmt"
	"os"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// oddImage is laid out as images that other tools could not boot: its /tmp leads nowhere, its /run has directories
// with owners that its service needs, its volumes and its working directory are missing.
func oddImage(string) (v1.Image, error) {
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return nil, fmt.Errorf("the stories need the package busybox-static: %w", err)
	}
	entries := []entry{dir("bin"), dir("etc"), dir("var"), dir("run"),
		{Header: tar.Header{Name: "run/mysqld", Typeflag: tar.TypeDir, Mode: 0o755, Uid: 999, Gid: 999}},
		{Header: tar.Header{Name: "run/sshd", Typeflag: tar.TypeDir, Mode: 0o755}},
		{Header: tar.Header{Name: "var/run", Typeflag: tar.TypeSymlink, Linkname: "/run"}},
		{Header: tar.Header{Name: "tmp", Typeflag: tar.TypeSymlink, Linkname: "var/volatile/tmp"}},
		{Header: tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, data: string(busybox)},
	}
	for tool := range strings.FieldsSeq("sh cat ls stat id env pwd echo test sleep touch mkdir") {
		entries = append(entries, entry{Header: tar.Header{Name: "bin/" + tool, Typeflag: tar.TypeSymlink,
			Linkname: "busybox"}})
	}
	layer, err := layerOf(entries...)
	if err != nil {
		return nil, err
	}
	img, err := imageOf(v1.Config{
		Cmd:        []string{"/bin/sh"},
		Env:        []string{"PATH=/bin"},
		WorkingDir: "/srv/app",
		Volumes:    map[string]struct{}{"/var/lib/mysql": {}, "/data": {}},
	}, layer)
	return img, err
}
