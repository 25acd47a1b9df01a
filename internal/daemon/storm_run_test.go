package daemon

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"banger"
	"banger/internal/testing/hosttest"
	"banger/internal/testing/registrytest"
)

const (
	stormClients = 5
	stormKernel  = "base"
	stormVersion = "6.1.0-test"
)

// stormWorld is what the daemon finds outside of its state directory.
type stormWorld struct {
	registry         *registrytest.Server
	image            string // image of all VMs
	digests          []string
	vmlinux, modules string
}

// newStormWorld makes images with random bytes, and a kernel, for which any ELF file will do.
func newStormWorld(t *testing.T, dir string, dice *rand.Rand) *stormWorld {
	t.Helper()
	w := &stormWorld{registry: registrytest.Start(), vmlinux: filepath.Join(dir, "agent"),
		modules: filepath.Join(dir, "lib", "modules", stormVersion)}
	t.Cleanup(w.registry.Close)
	for name, data := range map[string]string{"modules.dep.bin": "index", "unused.ko": "module"} {
		if err := os.MkdirAll(w.modules, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(w.modules, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	layer := func() registrytest.Layer {
		data := make([]byte, 200_000)
		for i := range data {
			data[i] = byte(dice.Uint32() % 16)
		}
		var plain, packed bytes.Buffer
		tw, zw := tar.NewWriter(&plain), gzip.NewWriter(&packed)
		tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "file", Mode: 0o644, Size: int64(len(data))})
		tw.Write(data)
		tw.Close()
		zw.Write(plain.Bytes())
		zw.Close()
		return registrytest.Layer{Stored: packed.Bytes(), Plain: plain.Bytes()}
	}
	w.registry.AddImage("base", "v1", layer())
	w.image = w.registry.Ref("base", "v1")
	for n := range stormClients {
		w.digests = append(w.digests, w.registry.AddImage(fmt.Sprintf("c%d/image", n), "v1", layer()))
	}
	return w
}

// TestNothingAcknowledgedIsLostInAStormOfKills: clients create, change, start, stop and remove VMs, images and
// kernels while daemons, shims and VMMs are killed. A daemon may be killed while it recovers. Acknowledged changes
// must stay, requests that were cut off must be done completely or not at all, and at the end nothing may be left
// over. BANGER_STORM is the duration in seconds, which is short by default. BANGER_SEED repeats the same choices.
func TestNothingAcknowledgedIsLostInAStormOfKills(t *testing.T) {
	if os.Geteuid() == 0 {
		asUser(t)
		return
	}
	length, seed := 8*time.Second, uint64(time.Now().UnixNano())
	if n, err := strconv.Atoi(os.Getenv("BANGER_STORM")); err == nil {
		length = time.Duration(n) * time.Second
	}
	if n, err := strconv.ParseUint(os.Getenv("BANGER_SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("BANGER_SEED=%d", seed)
	s := newStorm(t)
	w := newStormWorld(t, s.dir, rand.New(rand.NewPCG(seed, 0)))
	s.start()
	ctx := context.Background()
	if _, err := s.api.PullImage(ctx, w.image, "", banger.Discard); err != nil {
		t.Fatal(err)
	}
	if _, err := s.api.ImportKernel(ctx, stormKernel, w.vmlinux, w.modules, banger.Discard); err != nil {
		t.Fatal(err)
	}
	until := time.Now().Add(length)
	var wg sync.WaitGroup
	var all []*stormClient
	for n := range stormClients {
		c := &stormClient{storm: s, n: n, dice: rand.New(rand.NewPCG(seed, 10+uint64(n))), world: w}
		all = append(all, c)
		wg.Go(func() { c.loop(until) })
	}
	s.blow(rand.New(rand.NewPCG(seed, 1)), until)
	wg.Wait()
	s.wantNoResidue(ctx)
	var done, uncertain, refused int
	for _, c := range all {
		done, uncertain, refused = done+c.done, uncertain+c.uncertain, refused+c.refused
	}
	t.Logf("%d requests were acknowledged, %d cut off, %d refused", done, uncertain, refused)
	t.Logf("killed: %d daemons, %d more while they recovered, %d shims and VMMs; the slowest start took %v",
		s.daemons, s.recovering, s.processes, s.slowest.Round(time.Millisecond))
	for _, b := range s.broken {
		t.Error(b)
	}
	if s.daemons == 0 || s.processes == 0 || uncertain == 0 {
		t.Error("nobody was hit: the storm proves nothing")
	}
}

// wantNoResidue removes all objects and then looks for traces on the host.
func (s *storm) wantNoResidue(ctx context.Context) {
	must := func(err error) {
		if err != nil {
			s.fault("at the end: %v", err)
		}
	}
	vms, err := s.api.List(ctx, true, nil)
	must(err)
	for _, vm := range vms {
		must(s.api.Remove(ctx, vm.ID, true))
	}
	images, err := s.api.Images(ctx, false)
	must(err)
	for _, img := range images {
		must(s.api.SaveImages(ctx, []string{img.Reference}, io.Discard)) // hashes the whole image
		must(s.api.RemoveImage(ctx, img.Reference))
	}
	_, err = s.api.PruneImages(ctx, true, false)
	must(err)
	kernels, err := s.api.Kernels(ctx)
	must(err)
	for _, k := range kernels {
		must(s.api.RemoveKernel(ctx, k.Name))
	}
	s.await("all shims and VMMs end", func() bool {
		return len(hosttest.ProcessesOf(filepath.Join(s.dir, "s", "vms")+"/")) == 0
	})
	if _, err = s.api.Shutdown(ctx); err == nil {
		s.daemon.Wait()
		s.daemon = nil
	}
	must(err)
	s.killDaemon() // if it still exists
	for _, dir := range []string{"s/vms", "s/lost", "s/jail", "r/vms", "s/kernels",
		"s/images/sha256", "s/images/blobs/sha256", "s/images/blobs/partial"} {
		filepath.WalkDir(filepath.Join(s.dir, dir), func(path string, _ fs.DirEntry, err error) error {
			if err == nil && path != filepath.Join(s.dir, dir) {
				s.fault("%s is left", path)
			}
			return nil
		})
	}
	for _, pattern := range []string{"s/*.tmp", "s/images/*.tmp"} {
		left, _ := filepath.Glob(filepath.Join(s.dir, pattern))
		if len(left) > 0 {
			s.fault("%q are left", left)
		}
	}
	name := fmt.Sprintf("banger-%08x", crc32.ChecksumIEEE([]byte(filepath.Join(s.dir, "s"))))
	groups, _ := filepath.Glob("/sys/fs/cgroup/" + name)
	more, _ := filepath.Glob("/sys/fs/cgroup/*/" + name)
	if len(groups)+len(more) > 0 {
		s.fault("control groups are left: %q", append(groups, more...))
	}
}
