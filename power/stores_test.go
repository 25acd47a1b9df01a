//go:build power

package power

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger"
)

// stores is the work of adding and removing images and kernels.
type stores struct{}

func (stores) name() string { return "images and kernels" }

func (stores) prepare(t *testing.T, dir string, seed uint64) world { return newWorld(t, dir, seed) }

func (stores) begin(t *testing.T, b *daemon, w world) { w.install(t, b) }

func (stores) next(dice *rand.Rand, w world, client int, m model) step {
	var s step
	switch dice.IntN(12) {
	case 0, 1, 2, 3:
		s = pictureStep(dice, w, client, m)
	case 11:
		s = loadStep(w, client, m)
	case 10:
		s = saveStep(dice, w, client, m)
	case 4:
		s = tagStep(dice, w, client, m)
	case 5, 6:
		s = ownStep(dice, w, client, m)
	default:
		s = kernelStep(dice, w, client, m)
	}
	do := s.do
	s.do = func(ctx context.Context, b *daemon) error {
		if strings.Contains(s.text, " rm ") { // which is refused while something is brought in
			w.bringing.Lock()
			defer w.bringing.Unlock()
		} else {
			w.bringing.RLock()
			defer w.bringing.RUnlock()
		}
		return do(ctx, b)
	}
	return s
}

// removeImage returns the step that removes a reference.
func removeImage(ref string) step {
	return step{"image rm " + ref, func(ctx context.Context, b *daemon) error { return b.api.RemoveImage(ctx, ref) },
		func(m model) { delete(m, "image "+ref) }}
}

// pictureStep returns a step that pulls one version of an image, or removes the existing one.
func pictureStep(dice *rand.Rand, w world, client int, m model) step {
	name, version := pictureName(client, dice.IntN(pictures)), dice.IntN(versions)
	ref, digest := w.ref(name), w.Digests[versioned(name, version)]
	if m["image "+ref] != "" && dice.IntN(2) == 0 {
		return removeImage(ref)
	}
	return step{"image pull " + versioned(ref, version), func(ctx context.Context, b *daemon) error {
		w.publish(name, version)
		_, err := b.api.PullImage(ctx, ref, "", banger.Discard)
		return err
	}, func(m model) { m["image "+ref] = digest }}
}

// tagStep returns a step that gives an image another name.
func tagStep(dice *rand.Rand, w world, client int, m model) step {
	from, to := w.ref(pictureName(client, dice.IntN(pictures))), w.ref(fmt.Sprintf("c%d/tag", client))
	switch {
	case m["image "+from] != "":
		return step{"image tag " + from + " " + to,
			func(ctx context.Context, b *daemon) error { return only(b.api.TagImage(ctx, from, to)) },
			func(m model) { m["image "+to] = m["image "+from] }}
	case m["image "+to] != "":
		return removeImage(to)
	}
	return pictureStep(dice, w, client, m)
}

// saveStep returns a step that writes an image to a file of the user, or removes that file.
func saveStep(dice *rand.Rand, w world, client int, m model) step {
	ref, name := w.ref(pictureName(client, dice.IntN(pictures))), fmt.Sprintf("c%d-saved.tar", client)
	if m["image "+ref] == "" {
		return pictureStep(dice, w, client, m)
	}
	return step{"image save -o " + name + " " + ref,
		func(ctx context.Context, b *daemon) error { return b.banger(ctx, "image", "save", "-o", name, ref) },
		func(m model) { m["file "+name] = m["image "+ref] }}
}

// loadStep returns a step that adds the image in a tar, or removes it.
func loadStep(w world, client int, m model) step {
	ref := w.ref(fmt.Sprintf("c%d/packed", client))
	if m["image "+ref] != "" {
		return removeImage(ref)
	}
	return step{"image load " + ref,
		func(ctx context.Context, b *daemon) error {
			return b.banger(ctx, "image", "load", "-q", "-i", w.packed(client))
		},
		func(m model) { m["image "+ref] = w.Digests[w.packed(client)] }}
}

// savedDigest returns the digest of the image in a tar. It checks that each blob is complete.
func savedDigest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var index struct{ Manifests []struct{ Digest string } }
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) && len(index.Manifests) == 1 {
			return index.Manifests[0].Digest, nil
		}
		if err != nil {
			return "", fmt.Errorf("%s is cut off: %w", path, err)
		}
		data, err := io.ReadAll(tr)
		if err == nil && h.Name == "index.json" {
			err = json.Unmarshal(data, &index)
		}
		sum := sha256.Sum256(data)
		if err != nil || filepath.Dir(h.Name) == "blobs/sha256" && filepath.Base(h.Name) != hex.EncodeToString(sum[:]) {
			return "", fmt.Errorf("%s of %s is not whole: %w", h.Name, path, err)
		}
	}
}

// ownStep returns a step that registers a file, copies it into the store, or removes it.
func ownStep(dice *rand.Rand, w world, client int, m model) step {
	ref, path := w.ref(fmt.Sprintf("c%d/own", client)), w.rootfsFile(client)
	digest := w.Digests[path]
	switch have := m["image "+ref]; {
	case have == "":
		return step{"image register " + ref, func(ctx context.Context, b *daemon) error {
			_, err := b.api.RegisterImage(ctx, ref, path, "")
			return err
		},
			func(m model) { m["image "+ref] = digest + ", foreign" }}
	case have != digest && dice.IntN(3) > 0:
		return step{"image promote " + ref,
			func(ctx context.Context, b *daemon) error { return only(b.api.PromoteImage(ctx, ref)) },
			func(m model) { m["image "+ref] = digest }}
	}
	return removeImage(ref)
}

// kernelStep returns a step that imports a kernel, pulls the distribution's, or removes the
// existing one.
func kernelStep(dice *rand.Rand, w world, client int, m model) step {
	name, release := fmt.Sprintf("c%d-kernel%d", client, dice.IntN(2)), releases[dice.IntN(2)]
	pulled := client == 0 && dice.IntN(3) == 0
	if pulled {
		name = debianKernel
	}
	switch {
	case m["kernel "+name] != "":
		return step{"kernel rm " + name, func(ctx context.Context, b *daemon) error { return b.api.RemoveKernel(ctx, name) },
			func(m model) { delete(m, "kernel "+name) }}
	case pulled:
		return step{"kernel pull", func(ctx context.Context, b *daemon) error {
			_, err := b.api.PullKernel(ctx, banger.Discard)
			return err
		},
			func(m model) { m["kernel "+name] = debianRelease }}
	}
	return step{"kernel import " + name + " " + release, func(ctx context.Context, b *daemon) error {
		_, err := b.api.ImportKernel(ctx, name, w.vmlinux(release), w.modules(release), banger.Discard)
		return err
	}, func(m model) { m["kernel "+name] = release }}
}

// lies checks that everything that a store would list is complete, byte by byte.
func (stores) lies(state string, w world, _, _ []model) (err error) {
	images := filepath.Join(state, "images")
	blobs, rerr := os.ReadDir(filepath.Join(images, "blobs", "sha256"))
	err = errors.Join(err, rerr)
	for _, b := range blobs {
		data, rerr := os.ReadFile(filepath.Join(images, "blobs", "sha256", b.Name()))
		if sum := sha256.Sum256(data); rerr != nil || hex.EncodeToString(sum[:]) != b.Name() {
			err = errors.Join(err, fmt.Errorf("blob %s has %d other bytes, %v", b.Name(), len(data), rerr))
		}
	}
	err = errors.Join(err, wantImages(images, w))
	kernels, rerr := os.ReadDir(filepath.Join(state, "kernels"))
	err = errors.Join(err, rerr)
	for _, k := range kernels {
		if !strings.HasPrefix(k.Name(), ".tmp-") {
			err = errors.Join(err, wantKernel(filepath.Join(state, "kernels", k.Name()), w))
		}
	}
	return err
}

// wantImages checks each image that is listed.
func wantImages(dir string, w world) (err error) {
	entries, err := os.ReadDir(filepath.Join(dir, "sha256"))
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".tmp-") {
			continue
		}
		at := filepath.Join(dir, "sha256", e.Name())
		var img banger.Image
		data, rerr := os.ReadFile(filepath.Join(at, "image.json"))
		if rerr == nil {
			rerr = json.Unmarshal(data, &img)
		}
		content, cerr := contentOf(filepath.Join(at, "rootfs.ext4"))
		if rerr != nil || cerr != nil || img.Digest != "sha256:"+e.Name() || content != w.Content[img.Digest] {
			err = errors.Join(err, fmt.Errorf("image %s is not whole: %w", e.Name(), errors.Join(rerr, cerr)))
		}
	}
	return err
}

// wantKernel checks that a kernel is one of the known ones.
func wantKernel(dir string, w world) error {
	var k banger.Kernel
	data, err := os.ReadFile(filepath.Join(dir, "kernel.json"))
	if err == nil {
		err = json.Unmarshal(data, &k)
	}
	content, cerr := kernelContent(dir)
	if err != nil || cerr != nil || k.Name != filepath.Base(dir) || content != w.Content[k.Version] {
		return fmt.Errorf("kernel %s, of version %q, is not whole: %w", filepath.Base(dir), k.Version, errors.Join(err, cerr))
	}
	return nil
}

func (stores) look(ctx context.Context, b *daemon) (model, error) {
	found := model{}
	images, err := b.api.Images(ctx, false)
	for _, img := range images {
		found["image "+img.Reference] = img.Digest
		if img.Foreign != "" {
			found["image "+img.Reference] += ", foreign"
		}
	}
	kernels, kerr := b.api.Kernels(ctx)
	for _, k := range kernels {
		found["kernel "+k.Name] = k.Version
	}
	files, ferr := filepath.Glob(filepath.Join(b.home(), "c*-saved.tar"))
	err = errors.Join(err, kerr, ferr)
	for _, path := range files {
		digest, derr := savedDigest(path)
		found["file "+filepath.Base(path)] = digest
		err = errors.Join(err, derr)
	}
	return found, err
}

// use makes a VM of an image. The image is then checked again, because the host went down.
func (stores) use(ctx context.Context, b *daemon, w world) error {
	s := createStep(w, "use")
	if err := s.do(ctx, b); err != nil {
		return err
	}
	return errors.Join(wantImages(filepath.Join(b.state, "images"), w), b.api.Remove(ctx, "use", false))
}
