package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"banger/internal/testing/overlaytest"
)

// step is one layer of an input: packages to unpack, and then other changes.
type step struct {
	packages string
	work     func(root string) error
}

// recipes are the inputs, each a list of layers.
var recipes = map[string][]step{
	"small": {{"busybox-static", nil}},
	"dev": {
		{"base-files bash coreutils libc6 libc-bin dpkg apt libapt-pkg6.0 perl-base tzdata util-linux libsystemd0 grep sed tar gzip findutils debianutils openssl libssl3 gpgv libgnutls30 login passwd mount", nil},
		{"python3.11 python3.11-minimal libpython3.11-stdlib libpython3.11-minimal openssh-server openssh-client sudo iputils-ping curl libcurl4 git git-man", func(root string) error {
			ping := []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00")
			return errors.Join(setxattr(filepath.Join(root, "bin/ping"), "security.capability", ping),
				os.Lchown(filepath.Join(root, "usr/bin/git"), 1000, 200000))
		}},
		{"gcc-12 cpp-12 g++-12 libgcc-12-dev libstdc++-12-dev binutils-x86-64-linux-gnu libbinutils libc6-dev linux-libc-dev",
			nil},
		{"", func(root string) error { // what builders do: remove what was installed
			return errors.Join(os.RemoveAll(filepath.Join(root, "usr/share/doc")),
				os.RemoveAll(filepath.Join(root, "usr/share/locale")))
		}},
		{"perl-modules-5.36 libperl5.36 cmake-data libicu72 vim-common vim-runtime", nil},
		{"", func(root string) error { // an opaque directory
			man := filepath.Join(root, "usr/share/man")
			return errors.Join(os.RemoveAll(man), os.MkdirAll(man, 0o755),
				os.WriteFile(filepath.Join(man, "README"), []byte("none\n"), 0o644))
		}},
	},
	"content1": {{"", content(64 << 10)}}, "content4": {{"", content(256 << 10)}}, "content16": {{"", content(1 << 20)}},
	"many": {{"papirus-icon-theme", nil}, {"libboost1.81-dev golang-1.19-src rust-src", nil}},
}

// content makes a thousand files of n bytes each, which compress to half their size.
func content(n int) func(string) error {
	return func(root string) error {
		p, x := make([]byte, n), uint64(n)
		for i := range 1000 {
			for j := range p {
				x = x*6364136223846793005 + 1442695040888963407
				p[j] = byte(x >> 60)
			}
			if err := os.WriteFile(filepath.Join(root, strconv.Itoa(i)), p, 0o644); err != nil {
				return err
			}
		}
		return nil
	}
}

// inputs makes the missing inputs: DIR/NAME-gzip, DIR/NAME-zstd and DIR/NAME.json, which is what
// overlayfs shows for the layers. ONLY selects inputs.
func inputs(dir string) error {
	only, err := regexp.Compile(os.Getenv("ONLY"))
	if err != nil {
		return err
	}
	for name, steps := range recipes {
		if !only.MatchString(name) {
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, name+"-zstd", "index.json")); err == nil {
			continue
		}
		if err := makeInput(dir, name, steps); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func makeInput(dir, name string, steps []step) error {
	work := filepath.Join(dir, "work-"+name)
	defer os.RemoveAll(work)
	debs := filepath.Join(work, "debs")
	if err := os.MkdirAll(debs, 0o755); err != nil {
		return err
	}
	stack, err := overlaytest.New(work)
	if err != nil {
		return err
	}
	for _, s := range steps {
		if err := stack.Layer(func(root string) error { return s.run(root, debs) }); err != nil {
			return err
		}
	}
	truth, err := stack.Truth()
	if err != nil {
		return err
	}
	if err := writeJSON(filepath.Join(dir, name+".json"), truth); err != nil {
		return err
	}
	var tars [][]byte
	for i := range stack.Len() {
		var buf bytes.Buffer
		if err := stack.WriteTar(&buf, i); err != nil {
			return err
		}
		tars = append(tars, buf.Bytes())
	}
	for kind, pack := range map[string]func([]byte) ([]byte, error){"gzip": gzipped, "zstd": zstded} {
		if err := writeLayout(filepath.Join(dir, name+"-"+kind), kind, tars, pack); err != nil {
			return err
		}
	}
	return nil
}

func (s step) run(root, debs string) error {
	for _, p := range strings.Fields(s.packages) {
		cmd := exec.Command("apt-get", "download", "-qq", p)
		cmd.Dir = debs
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get download %s: %w: %s", p, err, out)
		}
	}
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil {
		return err
	}
	for _, f := range files {
		if out, err := exec.Command("dpkg-deb", "-x", f, root).CombinedOutput(); err != nil {
			return fmt.Errorf("dpkg-deb -x %s: %w: %s", f, err, out)
		}
		if err := os.Remove(f); err != nil {
			return err
		}
	}
	if s.work != nil {
		return s.work(root)
	}
	return nil
}

func gzipped(p []byte) ([]byte, error) {
	var buf bytes.Buffer
	cmd := exec.Command("gzip", "-6", "-n") // as builders do; Go's own compresses otherwise
	cmd.Stdin, cmd.Stdout = bytes.NewReader(p), &buf
	if err := cmd.Run(); err == nil {
		return buf.Bytes(), nil
	}
	buf.Reset()
	w, err := gzip.NewWriterLevel(&buf, 6)
	if err != nil {
		return nil, err
	}
	_, err = w.Write(p)
	err = errors.Join(err, w.Close())
	return buf.Bytes(), err
}

func zstded(p []byte) ([]byte, error) {
	var buf bytes.Buffer
	w, err := zstd.NewWriter(&buf, zstd.WithEncoderLevel(zstd.SpeedDefault))
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(w, bytes.NewReader(p))
	err = errors.Join(err, w.Close())
	return buf.Bytes(), err
}

func writeLayout(dir, kind string, tars [][]byte, pack func([]byte) ([]byte, error)) error {
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	put := func(mediaType string, data []byte) map[string]any {
		d := digest(data)
		if werr := os.WriteFile(filepath.Join(blobs, strings.TrimPrefix(d, "sha256:")), data, 0o644); werr != nil {
			panic(werr)
		}
		return map[string]any{"mediaType": mediaType, "digest": d, "size": len(data)}
	}
	var layers, diffIDs []any
	for _, t := range tars {
		data, err := pack(t)
		if err != nil {
			return err
		}
		layers = append(layers, put("application/vnd.oci.image.layer.v1.tar+"+kind, data))
		diffIDs = append(diffIDs, digest(t))
	}
	config, _ := json.Marshal(map[string]any{
		"os":           "linux",
		"architecture": runtime.GOARCH,
		"config":       map[string]any{},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": diffIDs},
	})
	manifest, _ := json.Marshal(
		map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
			"config": put("application/vnd.oci.image.config.v1+json", config), "layers": layers})
	m := put("application/vnd.oci.image.manifest.v1+json", manifest)
	m["annotations"] = map[string]string{"org.opencontainers.image.ref.name": "latest"}
	index, _ := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []any{m}})
	return errors.Join(os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644),
		os.WriteFile(filepath.Join(dir, "index.json"), index, 0o644))
}

func digest(p []byte) string {
	sum := sha256.Sum256(p)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func setxattr(path, name string, value []byte) error { return syscall.Setxattr(path, name, value, 0) }
