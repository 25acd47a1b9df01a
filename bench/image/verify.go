package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"banger/internal/testing/overlaytest"
)

// verify converts each image that inputs has made, checks it with e2fsck, mounts it, and compares
// every entry with what overlayfs showed.
func verify(dir string) error {
	truths, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return err
	}
	for _, truth := range truths {
		for _, kind := range []string{"-gzip", "-zstd"} {
			layout := strings.TrimSuffix(truth, ".json") + kind
			n, err := verifyOne(dir, layout, truth)
			if err != nil {
				return fmt.Errorf("%s: %w", filepath.Base(layout), err)
			}
			fmt.Printf("%-16s %d entries, all as overlayfs shows them; e2fsck finds nothing\n", filepath.Base(layout), n)
		}
	}
	return nil
}

func verifyOne(dir, layout, truth string) (n int, err error) {
	work, err := os.MkdirTemp(dir, "verify-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(work)
	if err := ours(layout, work); err != nil {
		return 0, err
	}
	rootfs, err := filepath.Glob(filepath.Join(work, "images/sha256/*/rootfs.ext4"))
	if err != nil || len(rootfs) != 1 {
		return 0, fmt.Errorf("%d file systems, %w", len(rootfs), err)
	}
	if err := command("e2fsck", "-fn", rootfs[0]); err != nil {
		return 0, err
	}
	at := filepath.Join(work, "at")
	if err := os.Mkdir(at, 0o755); err != nil {
		return 0, err
	}
	if err := command("mount", "-o", "loop,ro", rootfs[0], at); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, syscall.Unmount(at, 0)) }()
	got, err := overlaytest.Describe(at)
	if err != nil {
		return 0, err
	}
	want, err := readJSON(truth)
	if err != nil {
		return 0, err
	}
	return len(want), compare(got, want)
}

// describe prints a tree. The tree may be on an ext4 device, because a guest's image may have no
// mount(8).
func describe(root string) error {
	if strings.HasPrefix(root, "/dev/") {
		at, err := os.MkdirTemp("", "at-")
		if err != nil {
			return err
		}
		if err := syscall.Mount(root, at, "ext4", syscall.MS_RDONLY, ""); err != nil {
			return err
		}
		root = at
	}
	all, err := overlaytest.Describe(root)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(all)
}

func compareFiles(a, b string) error {
	got, err := readJSON(a)
	if err != nil {
		return err
	}
	want, err := readJSON(b)
	if err != nil {
		return err
	}
	if err := compare(got, want); err != nil {
		return err
	}
	fmt.Printf("%d entries, all equal\n", len(want))
	return nil
}

// compare returns the first few differences as an error.
func compare(got, want map[string]string) error {
	var differences []error
	for name := range want {
		if got[name] != want[name] {
			differences = append(differences, fmt.Errorf("%q is %.300q, not %.300q", name, got[name], want[name]))
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			differences = append(differences, fmt.Errorf("%q is too much: %.300q", name, got[name]))
		}
	}
	return errors.Join(differences[:min(len(differences), 10)]...)
}

func readJSON(path string) (v map[string]string, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return v, json.Unmarshal(data, &v)
}

func writeJSON(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}
