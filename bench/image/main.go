// Command image measures how long it takes to make an ext4 file system of an OCI
// image, against other ways to do it, in pairs in one run. It is a module of its own,
// so that what it compares with is no dependency of the product.
//
//	image inputs DIR       make the images that are converted, of Debian packages
//	image figures DIR      run all pairs and print their ratios (PAIRS, ONLY)
//	image verify DIR       convert the images, mount them, compare with overlayfs (root)
//	image describe DIR     print what verify compares, as JSON; DIR may be a device to mount
//	image compare A B      compare two of these
//	image WAY LAYOUT DIR   convert once; figures calls it so, each time a new process
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"

	"banger"
	"banger/internal/image"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "inputs":
		return inputs(args[1])
	case len(args) == 2 && args[0] == "figures":
		return figures(args[1])
	case len(args) == 2 && args[0] == "verify":
		return verify(args[1])
	case len(args) == 2 && args[0] == "describe":
		return describe(args[1])
	case len(args) == 3 && args[0] == "compare":
		return compareFiles(args[1], args[2])
	case len(args) == 3 && ways[args[0]].convert != nil:
		return ways[args[0]].convert(args[1], args[2])
	}
	return fmt.Errorf("usage: image inputs DIR | figures DIR | WAY LAYOUT DIR")
}

// pulled is banger's way, from the registry that serve has started.
func pulled(_, dir string) error { return pull(os.Getenv(referenceVariable), dir) }

// ours does what `banger image pull` does, in this process and as durably.
func ours(layout, dir string) error { return pull("oci:"+layout, dir) }

func pull(ref, dir string) error {
	debug.SetMemoryLimit(image.HeapLimit)
	s, err := image.Open(filepath.Join(dir, "images"), image.Options{})
	if err != nil {
		return err
	}
	_, err = s.Ensure(context.Background(), ref, "", banger.PullAlways, banger.Discard)
	return err
}
