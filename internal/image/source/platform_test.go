package source

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"banger"
	"banger/internal/blob"
)

// contents are manifests and blobs by their digests. "" names the one that a reference names.
type contents map[string][]byte

func (c contents) Manifest(_ context.Context, digest string) ([]byte, error) {
	if data, ok := c[digest]; ok {
		return data, nil
	}
	return nil, banger.Errorf(banger.CodeNotFound, "there is no manifest %s", digest)
}

func (c contents) Blob(_ context.Context, digest string, offset int64) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(c[digest][offset:])), nil
}

func (c contents) Close() {}

// add adds a value as JSON and returns its digest.
func (c contents) add(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	digest := blob.Digest(data)
	c[digest] = data
	return digest
}

type object = map[string]any

// image adds an image without layers, whose config names a platform (os/arch[/variant], or ""), and returns a
// descriptor of it, as an index has it.
func (c contents) image(t *testing.T, platform string) object {
	t.Helper()
	part := append(strings.Split(platform, "/"), "", "", "")
	config := object{"os": part[0], "architecture": part[1], "variant": part[2], "author": fmt.Sprint(len(c)),
		"rootfs": object{"type": "layers", "diff_ids": []string{}}}
	digest := c.add(t, config)
	manifest := c.add(t, object{"schemaVersion": 2, "layers": []string{},
		"config": object{"digest": digest, "size": len(c[digest]), "mediaType": ociConfigType}})
	return object{"digest": manifest, "size": len(c[manifest]), "mediaType": ociManifestType}
}

// platform returns a platform of an index: os/arch[/variant], with features after a +.
func platform(text string) object {
	text, features, _ := strings.Cut(text, "+")
	part := append(strings.Split(text, "/"), "")
	p := object{"os": part[0], "architecture": part[1], "variant": part[2]}
	if features != "" {
		p["os.features"] = strings.Split(features, ",")
	}
	return p
}

// TestAnIndexIsResolvedForTheCPU lists indexes by the platforms of their entries. A ? is an entry for which the index
// names no platform, before the one that its config names.
func TestAnIndexIsResolvedForTheCPU(t *testing.T) {
	for name, c := range map[string]struct {
		index []string
		want  string // asked for; "" means linux/amd64
		level int
		got   string // "" means an error
	}{
		"the first of equal ones": {[]string{"linux/amd64", "linux/amd64"}, "", 1, "0"},
		"v3 before plain, on v1":  {[]string{"linux/amd64/v3", "linux/amd64"}, "", 1, "1"},
		"v3 before plain, on v2":  {[]string{"linux/amd64/v3", "linux/amd64"}, "", 2, "1"},
		"v3 before plain, on v3":  {[]string{"linux/amd64/v3", "linux/amd64"}, "", 3, "0"},
		"the highest that the CPU has": {[]string{"linux/amd64", "linux/amd64/v2", "linux/amd64/v4", "linux/amd64/v3"},
			"", 3, "3"},
		"v1 is plain":        {[]string{"linux/amd64/v1", "linux/amd64"}, "", 4, "0"},
		"an unknown variant": {[]string{"linux/amd64/v9", "linux/amd64"}, "", 4, "1"},
		"only higher ones":   {[]string{"linux/amd64/v3", "linux/amd64/v4"}, "", 2, ""},
		"no level is known":  {[]string{"linux/amd64/v2", "linux/amd64"}, "", 0, "1"},
		"a variant that was asked for": {[]string{"linux/amd64", "linux/amd64/v2", "linux/amd64/v3"},
			"linux/amd64/v2", 4, "1"},
		"the plain one that was asked for":   {[]string{"linux/amd64/v2", "linux/amd64"}, "linux/amd64/v1", 4, "1"},
		"another CPU first":                  {[]string{"linux/arm64/v8", "linux/amd64"}, "", 3, "1"},
		"another CPU only":                   {[]string{"linux/arm64/v8", "linux/s390x"}, "", 3, ""},
		"another system":                     {[]string{"windows/amd64", "linux/amd64"}, "", 3, "1"},
		"what buildx adds":                   {[]string{"unknown/unknown", "linux/amd64"}, "", 3, "1"},
		"a feature that no guest has":        {[]string{"linux/amd64+sgx", "linux/amd64"}, "", 3, "1"},
		"only with a feature":                {[]string{"linux/amd64+sgx"}, "", 3, ""},
		"arm64 with and without its variant": {[]string{"linux/arm64/v9", "linux/arm64/v8"}, "linux/arm64", 3, "1"},
		"by their configs":                   {[]string{"?linux/arm64", "?linux/amd64"}, "", 3, "1"},
		"by their configs, the highest level": {[]string{"?linux/amd64", "?linux/amd64/v4", "?linux/amd64/v3"}, "", 3,
			"2"},
		"by their configs, and none suits":       {[]string{"?linux/arm64", "?linux/s390x"}, "", 3, ""},
		"a config without a platform":            {[]string{"?"}, "", 3, "0"},
		"one with a platform before one without": {[]string{"?linux/amd64", "linux/amd64"}, "", 3, "1"},
		"nothing":                                {nil, "", 3, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var list []object
			all := contents{}
			for _, entry := range c.index {
				config, unnamed := strings.CutPrefix(entry, "?")
				config, _, _ = strings.Cut(config, "+")
				d := all.image(t, config)
				if !unnamed {
					d["platform"] = platform(entry)
				}
				list = append(list, d)
			}
			all[""] = all[all.add(t, object{"schemaVersion": 2, "manifests": append([]object{}, list...)})]
			got, err := read(t, all, c.want, c.level)
			if c.got == "" {
				if err == nil {
					t.Errorf("%s is chosen", got.Platform)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for i, d := range list {
				if d["digest"] == got.Digest && fmt.Sprint(i) != c.got {
					t.Errorf("entry %d is chosen, not %s", i, c.got)
				}
			}
		})
	}
}

// read reads the image of contents on a host whose CPU has a level.
func read(t *testing.T, c contents, want string, level int) (*Image, error) {
	t.Helper()
	blobs, err := blob.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if want == "" {
		want = "linux/amd64"
	}
	p, err := ParsePlatform(want)
	if err != nil {
		t.Fatal(err)
	}
	f := Finder{Blobs: blobs, Level: level}
	return f.Read(t.Context(), c, p)
}

// TestASingleManifestForAnotherCPUIsRefused checks that the error does not lead to itself.
func TestASingleManifestForAnotherCPUIsRefused(t *testing.T) {
	for config, ok := range map[string]bool{"linux/amd64": true, "linux/amd64/v2": true, "": true, "linux/arm64": false,
		"linux/amd64/v3": false, "windows/amd64": false} {
		all := contents{}
		all[""] = all[all.image(t, config)["digest"].(string)]
		_, err := read(t, all, "", 2)
		if (err == nil) != ok {
			t.Errorf("%q: %v", config, err)
		}
		if err != nil && strings.Contains(err.Error(), "--platform") {
			t.Errorf("%q: the advice leads back: %v", config, err)
		}
	}
}

// TestTheIndexSaysWhatAConfigLacks checks the platform of an image whose config names no variant.
func TestTheIndexSaysWhatAConfigLacks(t *testing.T) {
	all := contents{}
	d := all.image(t, "linux/amd64")
	d["platform"] = platform("linux/amd64/v2")
	all[""] = all[all.add(t, object{"schemaVersion": 2, "manifests": []object{d}})]
	img, err := read(t, all, "", 3)
	if err != nil || img.Platform != "linux/amd64/v2" {
		t.Errorf("the platform is %v, %v", img, err)
	}
	stored := banger.Image{Platform: "linux/amd64/v2"}
	for want, level := range map[string]int{"linux/amd64": 2, "linux/amd64/v3": 1} {
		p, err := v1.ParsePlatform(want)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckPlatform(stored, *p, level); err != nil {
			t.Errorf("%s on level %d: %v", want, level, err)
		}
	}
	if err := CheckPlatform(stored, v1.Platform{OS: "linux", Architecture: "amd64"}, 1); err == nil {
		t.Error("an image for v2 is used on a CPU of v1")
	}
}
