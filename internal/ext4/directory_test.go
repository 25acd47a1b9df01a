package ext4

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"banger/internal/testing/processtest"

	"golang.org/x/sys/unix"
)

// names returns n names. They are of every length and have bytes of every value.
func names(n int) map[string]*Node {
	m := map[string]*Node{}
	for i := range n {
		name := fmt.Sprintf("%d", i)
		switch i % 4 {
		case 1:
			name += strings.Repeat("x", i%(256-len(name)))
		case 2:
			name += string([]byte{byte(128 + i%128), 0xff, '\n'})
		case 3:
			name = strings.Repeat("y", 255-len(name)) + name
		}
		m[name] = &Node{Mode: syscall.S_IFREG | 0o600}
	}
	return m
}

// oneLeaf fills a block so far that "." and ".." do not fit into it.
func oneLeaf() map[string]*Node {
	m := map[string]*Node{strings.Repeat("z", 100): {Mode: syscall.S_IFREG}}
	for i := range 15 {
		m[fmt.Sprintf("%0255d", i)] = &Node{Mode: syscall.S_IFREG}
	}
	return m
}

func subdirectories(n int) map[string]*Node {
	m := map[string]*Node{}
	for i := range n {
		m[fmt.Sprint(i)] = dir(nil)
	}
	return m
}

// TestHashedDirectories checks that a directory of more than one block is a hash tree which e2fsck
// and the kernel accept, whatever the seed is: every name is found, and no other.
func TestHashedDirectories(t *testing.T) {
	processtest.Long(t)
	for _, tt := range []struct {
		name     string
		seed     byte
		children map[string]*Node
		indexed  bool
		inodes   uint32
	}{
		{"one block", 1, names(10), false, 0},
		{"a root and one leaf", 3, oneLeaf(), true, 0},
		{"two leaves", 0, names(80), true, 0},
		{"many leaves", 7, names(3000), true, 0},
		{"inner nodes", 9, names(30_000), true, 0},
		{"more subdirectories than links", 5, subdirectories(66_000), true, 70_000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			opts := Options{Size: 2 << 30, HashSeed: [16]byte{tt.seed, 2: tt.seed, 9: tt.seed}, Inodes: tt.inodes}
			path := image(t, opts, func(*Writer) *Node { return dir(map[string]*Node{"d": dir(tt.children)}) })
			fsck(t, path)
			mounted(t, path, "ro", func(at string) {
				d := filepath.Join(at, "d")
				if got := isIndexed(t, d); got != tt.indexed {
					t.Errorf("indexed: %v", got)
				}
				missing := 0
				for name := range tt.children {
					var st syscall.Stat_t
					if syscall.Lstat(filepath.Join(d, name), &st) != nil {
						missing++
					}
				}
				entries, err := os.ReadDir(d)
				if err != nil || len(entries) != len(tt.children) || missing != 0 {
					t.Errorf("%d of %d names are listed, %d are not found, %v", len(entries), len(tt.children), missing, err)
				}
				if _, err := os.Lstat(filepath.Join(d, "absent")); !os.IsNotExist(err) {
					t.Errorf("a name that is not there gives %v", err)
				}
			})
		})
	}
}

func isIndexed(t *testing.T, dir string) bool {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	flags, err := unix.IoctlGetUint32(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		t.Fatal(err)
	}
	return flags&flagIndex != 0
}

// TestEqualHashes checks that names with equal hashes may fill more than one leaf: the next leaf's
// hash says that the chain continues.
func TestEqualHashes(t *testing.T) {
	var seed [4]uint32 = newHashSeed([16]byte{3})
	byHash := map[uint32][]string{}
	var chain []string
	for i := 0; chain == nil; i++ { // about 2^16 names for two that are equal
		name := fmt.Sprintf("%0250d", i)
		h := nameHash(seed, name)
		if byHash[h] = append(byHash[h], name); len(byHash[h]) == 2 {
			chain = byHash[h]
		}
	}
	// A leaf has room for 15 names of this length, so some of the 64 positions of the pair are at the
	// end of a leaf.
	cut := false
	for extra := 20; extra < 84; extra++ {
		children := map[string]*Node{chain[0]: dir(nil), chain[1]: dir(nil)}
		for i := range extra {
			children[fmt.Sprintf("%0250d", 10_000_000+i)] = dir(nil)
		}
		entries := []dirent{}
		for _, name := range sortedNames(children) {
			entries = append(entries, dirent{name: name, node: children[name], hash: nameHash(seed, name)})
		}
		if !cutsChain(entries) {
			continue
		}
		cut = true
		path := image(t, Options{Size: MinSize, HashSeed: [16]byte{3}}, func(*Writer) *Node { return dir(children) })
		fsck(t, path)
		mounted(t, path, "ro", func(at string) {
			for _, name := range chain {
				if _, err := os.Lstat(filepath.Join(at, name)); err != nil {
					t.Error(err)
				}
			}
		})
		break
	}
	if !cut {
		t.Fatal("no pair of equal hashes was cut by the end of a leaf")
	}
}

// cutsChain reports whether a leaf would end between two equal hashes.
func cutsChain(entries []dirent) bool {
	sortByHash(entries)
	_, first := packEntries(entries, 0)
	for _, f := range first[1:] {
		if entries[f-1].hash == entries[f].hash {
			return true
		}
	}
	return false
}
