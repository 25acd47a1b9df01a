package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// referenceVariable is the environment variable with the name of serve's image, for the processes
// that pull it.
const referenceVariable = "BANGER_BENCH_REFERENCE"

// serve starts Debian's docker-registry on loopback and pushes the image of a layout to it.
func serve(dir, layout string) (stop func(), err error) {
	work, err := os.MkdirTemp(dir, "registry-")
	if err != nil {
		return nil, err
	}
	config := filepath.Join(work, "config.yml")
	text := fmt.Sprintf(
		"version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: %s\nhttp:\n  addr: 127.0.0.1:0\n",
		work)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return nil, err
	}
	cmd := exec.Command("docker-registry", "serve", config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, err
	}
	stop = func() {
		cmd.Process.Kill()
		cmd.Wait()
		os.RemoveAll(work)
	}
	addr := ""
	for lines := bufio.NewScanner(log); addr == "" && lines.Scan(); {
		_, rest, _ := strings.Cut(lines.Text(), "listening on ")
		addr, _, _ = strings.Cut(rest, `"`)
	}
	go io.Copy(io.Discard, log) // ends with the process
	if err := push(addr+"/bench:latest", layout); err != nil {
		stop()
		return nil, err
	}
	return stop, os.Setenv(referenceVariable, addr+"/bench:latest")
}

func push(ref, layout string) error {
	img, err := open(layout)
	if err != nil {
		return err
	}
	tag, err := name.NewTag(ref)
	return errors.Join(err, remote.Write(tag, img))
}
