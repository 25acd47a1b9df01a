package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banger"
)

// kills returns how often TestKilledAtAnyInstant kills: a few times in every run, 200 times if
// BANGER_KILLS asks for it.
func kills() int {
	if n, err := strconv.Atoi(os.Getenv("BANGER_KILLS")); err == nil {
		return n
	}
	return 12
}

// TestPullInAProcessOfItsOwn is the process that is killed; alone it does nothing.
func TestPullInAProcessOfItsOwn(t *testing.T) {
	dir, ref := os.Getenv("BANGER_KILL_DIR"), os.Getenv("BANGER_KILL_REF")
	if dir == "" {
		return
	}
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("pulling")
	if _, err := s.Ensure(context.Background(), ref, "", banger.PullAlways, banger.Discard); err != nil {
		t.Fatal(err)
	}
}

// puller starts the process and waits until it pulls.
func puller(t *testing.T, dir, ref string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestPullInAProcessOfItsOwn$", "-test.v")
	cmd.Env = append(os.Environ(), "BANGER_KILL_DIR="+dir, "BANGER_KILL_REF="+ref)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	seen := []byte{}
	for one := make([]byte, 1); !bytes.Contains(seen, []byte("pulling")); {
		if _, err := out.Read(one); err != nil {
			t.Fatalf("the process says %q and ends: %v", seen, err)
		}
		seen = append(seen, one[0])
	}
	go io.Copy(io.Discard, out) // ends with the process
	return cmd
}

// TestKilledAtAnyInstant checks that the same pull, started again after the process died at any
// instant, gives the same bytes and leaves nothing else.
func TestKilledAtAnyInstant(t *testing.T) {
	r := rand.New(rand.NewPCG(7, uint64(kills())))
	var layers []layerBlob
	for i := range 4 {
		var list []entry
		for j := range 40 {
			p := make([]byte, r.IntN(100_000))
			for k := range p {
				p[k] = byte(r.Uint32() % 16)
			}
			list = append(list, file(fmt.Sprintf("%d-%d", i%3, j), string(p)))
		}
		layers = append(layers, packed(gzipped, list...))
	}
	ref := serve(t, read(t, ociDir(t, layers...)), nil)

	want, begun := openStore(t), time.Now()
	cmd := puller(t, filepath.Join(t.TempDir(), "timed"), ref)
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	whole := time.Since(begun)
	truth := ensure(t, want, ref)
	digest := contentOf(t, want.RootfsPath(truth.Digest))

	dir := filepath.Join(t.TempDir(), "images")
	for i := range kills() {
		cmd := puller(t, dir, ref)
		at := time.Duration(r.Int64N(int64(whole)))
		time.Sleep(at) // the instant is the test's input, not a wait for something
		cmd.Process.Kill()
		cmd.Wait()
		s, err := Open(dir, Options{})
		if err != nil {
			t.Fatalf("kill %d after %v: %v", i, at, err)
		}
		img := ensure(t, s, ref)
		if img.Digest != truth.Digest || contentOf(t, s.RootfsPath(img.Digest)) != digest {
			t.Fatalf("kill %d after %v: the image is another", i, at)
		}
		wantOnly(t, s, img.Digest)
		wantBlobs(t, s, img)
		if i%2 == 0 { // else the next process finds a whole image
			if err := s.Remove(ref, noVM); err != nil {
				t.Fatal(err)
			}
			wantBlobs(t, s)
		}
	}
}

// wantBlobs checks that the store has the blobs of these images and no other files.
func wantBlobs(t *testing.T, s *Store, images ...banger.Image) {
	t.Helper()
	needed := map[string]bool{}
	for _, img := range images {
		for _, d := range blobsOf(img) {
			needed[d] = true
		}
	}
	list, err := s.blobs.List()
	if err != nil || len(list) != len(needed) {
		t.Errorf("%d blobs are there and %d needed (%v)", len(list), len(needed), err)
	}
	if left, err := os.ReadDir(filepath.Join(filepath.Dir(s.images.dir), "blobs/partial")); err != nil || len(left) > 0 {
		t.Errorf("%v are left half-fetched (%v)", left, err)
	}
}

// contentOf returns a hash of the non-zero blocks of a sparse file and of their offsets.
func contentOf(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h, buf, zero := sha256.New(), make([]byte, 4096), make([]byte, 4096)
	for at := int64(0); ; at += 4096 {
		if at, err = unix.Seek(int(f.Fd()), at, unix.SEEK_DATA); err == unix.ENXIO {
			return hex.EncodeToString(h.Sum(nil))
		}
		if err == nil {
			_, err = f.ReadAt(buf, at)
		}
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(buf, zero) {
			fmt.Fprintln(h, at)
			h.Write(buf)
		}
	}
}
