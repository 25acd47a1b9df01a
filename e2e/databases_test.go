package e2e

import (
	"fmt"
	"os/exec"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// databasesImage is Debian with PostgreSQL and SQLite, made of this host's packages.
func databasesImage(work string) (v1.Image, error) {
	root := filepath.Join(work, "databases.tar")
	args := []string{"--variant=minbase", "--include=postgresql,sqlite3",
		"--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr", "--dpkgopt=force-unsafe-io",
		"--skip=cleanup/reproducible", "bookworm", root}
	for _, pattern := range []string{"/etc/apt/sources.list", "/etc/apt/sources.list.d/*.list",
		"/etc/apt/sources.list.d/*.sources"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return nil, err
		}
		args = append(args, files...)
	}
	if out, err := exec.Command("mmdebstrap", args...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("mmdebstrap: %w: %s", err, out[max(0, len(out)-2000):])
	}
	layer, err := tarball.LayerFromFile(root)
	if err != nil {
		return nil, err
	}
	return imageOf(v1.Config{Cmd: []string{"/bin/sh"}, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}}, layer)
}
