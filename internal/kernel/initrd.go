package kernel

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"

	"banger"
	"banger/internal/blob"
)

// Initrd returns the path and the name of an initramfs for the named kernel. It contains agent as
// /init, the boot modules, and their order in /modules.list. It is made once per agent and kept in
// the kernel's directory. It is not compressed, because an emulated CPU unpacks more slowly than
// QEMU loads. When Initrd makes one, it removes those of earlier agents for which used returns
// false.
func (s *Store) Initrd(name string, agent []byte, used func(file string) bool) (path, file string, err error) {
	if len(agent) == 0 {
		return "", "", banger.Errorf(banger.CodeInternal, "this banger was built without a guest agent").
			WithHint("build it with: make build")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := sha256.Sum256(agent)
	file = "initrd-" + hex.EncodeToString(sum[:8]) + ".cpio"
	path = s.InitrdPath(name, file)
	if _, err := os.Stat(path); err == nil {
		return path, file, nil
	}
	old, err := filepath.Glob(filepath.Join(s.dir, name, "initrd-*"))
	if err != nil {
		return "", "", err
	}
	err = blob.WriteFile(path, 0o644, func(w io.Writer) error {
		return writeInitrd(w, filepath.Join(s.dir, name, bootModulesDir), agent)
	})
	if err != nil {
		return "", "", fmt.Errorf("building the initramfs of %s: %w", name, err)
	}
	for _, o := range old { // files of earlier agents
		if !used(filepath.Base(o)) {
			os.Remove(o)
		}
	}
	return path, file, nil
}

// InitrdPath returns the path of an initramfs of the named kernel, given the name that Initrd has returned.
func (s *Store) InitrdPath(name, file string) string { return filepath.Join(s.dir, name, file) }

// writeInitrd writes a newc archive (Documentation/driver-api/early-userspace/buffer-format.rst).
func writeInitrd(out io.Writer, modules string, agent []byte) error {
	list, err := os.ReadFile(filepath.Join(modules, modulesList))
	if err != nil {
		return err
	}
	w := cpio.Newc.Writer(out)
	ino := uint64(0)
	write := func(r cpio.Record) error {
		ino++
		r.Ino = ino
		return w.WriteRecord(r)
	}
	for _, r := range []cpio.Record{
		cpio.Directory("dev", 0o755), cpio.Directory("proc", 0o755), cpio.Directory("sys", 0o755),
		cpio.CharDev("dev/console", 0o600, 5, 1),
		regularFile("init", agent, 0o755),
		cpio.Directory("modules", 0o755),
		regularFile(modulesList, list, 0o644),
	} {
		if err := write(r); err != nil {
			return err
		}
	}
	for _, path := range strings.Fields(string(list)) {
		ko, err := os.ReadFile(filepath.Join(modules, filepath.Base(path)))
		if err != nil {
			return err
		}
		if err := write(regularFile(strings.TrimPrefix(path, "/"), ko, 0o644)); err != nil {
			return err
		}
	}
	return cpio.WriteTrailer(w)
}

func regularFile(name string, content []byte, mode uint64) cpio.Record {
	return cpio.StaticRecord(content, cpio.Info{Name: name, Mode: cpio.S_IFREG | mode})
}
