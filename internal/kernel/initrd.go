package kernel

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"

	"banger"
)

// Initrd returns the path of an initramfs for the named kernel: agent as /init,
// the boot modules and their order in /modules.list. It is built in memory once
// per agent and kept beside the kernel, uncompressed, since an emulated CPU
// unpacks slower than QEMU loads.
func (s *Store) Initrd(name string, agent []byte) (string, error) {
	if len(agent) == 0 {
		return "", banger.Errorf(banger.CodeInternal, "this banger was built without a guest agent").WithHint("build it with: make build")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := sha256.Sum256(agent)
	path := filepath.Join(s.dir, name, "initrd-"+hex.EncodeToString(sum[:8])+".cpio")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	data, err := buildInitrd(filepath.Join(s.dir, name, bootModulesDir), agent)
	if err != nil {
		return "", fmt.Errorf("building the initramfs of %s: %w", name, err)
	}
	old, err := filepath.Glob(filepath.Join(s.dir, name, "initrd-*"))
	if err != nil {
		return "", err
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, data, 0o644); err != nil {
		return "", err
	}
	if err := os.Rename(tmp, path); err != nil {
		return "", err
	}
	for _, o := range old { // of earlier agents; running VMs have theirs in memory
		os.Remove(o)
	}
	return path, nil
}

// buildInitrd returns a newc archive (Documentation/driver-api/early-userspace/buffer-format.rst).
func buildInitrd(modules string, agent []byte) ([]byte, error) {
	list, err := os.ReadFile(filepath.Join(modules, modulesList))
	if err != nil {
		return nil, err
	}
	records := []cpio.Record{
		cpio.Directory("dev", 0o755), cpio.Directory("proc", 0o755), cpio.Directory("sys", 0o755),
		cpio.CharDev("dev/console", 0o600, 5, 1),
		cpio.StaticFile("init", string(agent), 0o755),
		cpio.Directory("modules", 0o755),
		cpio.StaticFile(modulesList, string(list), 0o644),
	}
	for _, path := range strings.Fields(string(list)) {
		ko, err := os.ReadFile(filepath.Join(modules, filepath.Base(path)))
		if err != nil {
			return nil, err
		}
		records = append(records, cpio.StaticFile(strings.TrimPrefix(path, "/"), string(ko), 0o644))
	}
	var out bytes.Buffer
	w := cpio.Newc.Writer(&out)
	for i, r := range records {
		r.Ino = uint64(i + 1)
		if err := w.WriteRecord(r); err != nil {
			return nil, err
		}
	}
	if err := cpio.WriteTrailer(w); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
