package source

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"banger"
)

// ParsePlatform parses os/arch[/variant]. "" means this machine's platform.
func ParsePlatform(s string) (v1.Platform, error) {
	if s == "" {
		return v1.Platform{OS: "linux", Architecture: runtime.GOARCH}, nil
	}
	p, err := v1.ParsePlatform(s)
	if err != nil || p.OS != "linux" || p.Architecture == "" {
		return v1.Platform{}, banger.Errorf(banger.CodeInvalid, "%.100q is not a platform of Linux", s).
			WithHint("write it like linux/amd64 or linux/amd64/v3")
	}
	p.Architecture = architecture(p.Architecture)
	return *p, nil
}

// architecture returns the name that Go and the image specification use.
func architecture(name string) string {
	switch name {
	case "x86_64", "x86-64":
		return "amd64"
	case "aarch64":
		return "arm64"
	}
	return name
}

// CheckPlatform returns an error if img is not for a platform, or needs more than a CPU of the level.
func CheckPlatform(img banger.Image, platform v1.Platform, level int) error {
	have, err := v1.ParsePlatform(img.Platform)
	if err == nil && fit(*have, platform, level) > 0 {
		return nil
	}
	return banger.Errorf(banger.CodeNotFound, "image %s is stored for %s, not for %s", img.Reference, img.Platform,
		platform.String())
}

// fit returns how well an image of the platform have suits the platform want on a CPU of the level. 0 means that it
// does not run there, and more is better: it is the level for which the image was compiled. An image without a platform
// could be for any, so its rank is 1.
func fit(have, want v1.Platform, level int) int {
	if have.OS != "" && have.OS != want.OS {
		return 0
	}
	if have.Architecture != "" && architecture(have.Architecture) != want.Architecture {
		return 0
	}
	for _, feature := range have.OSFeatures { // each is mandatory (image-spec image-index.md, os.features)
		if !slices.Contains(want.OSFeatures, feature) {
			return 0
		}
	}
	switch want.Architecture {
	case "amd64":
		if want.Variant != "" {
			level = levelOf(want.Variant)
		}
		if l := levelOf(have.Variant); l > 0 && l <= max(level, 1) {
			return l
		}
		return 0
	case "arm64":
		if have.Variant == "" || have.Variant == "v8" || have.Variant == want.Variant {
			return 1
		}
		return 0
	}
	if want.Variant == "" || have.Variant == want.Variant {
		return 1
	}
	return 0
}

// levelOf returns the level of an x86-64 CPU that a variant needs (x86-64 psABI, section 3.1.1), or 0 if the variant is
// unknown. The variant "" is the first level.
func levelOf(variant string) int {
	switch variant {
	case "", "v1":
		return 1
	case "v2", "v3", "v4":
		return int(variant[1] - '0')
	}
	return 0
}

// maxUnnamed is how many manifests without a platform are read in order to learn it from their configs.
const maxUnnamed = 16

// choose returns the manifest in an index that suits the platform best: the one for the highest level that the CPU has,
// and of several equal ones the first. If the index names the platform of none that suits, the configs of those without
// a platform are read.
func (f *Finder) choose(ctx context.Context, c Content, list []v1.Descriptor,
	want v1.Platform) (v1.Descriptor, error) {
	var best v1.Descriptor
	rank := 0
	var have []string
	var unnamed []v1.Descriptor
	for _, d := range list {
		if d.Platform == nil || d.Platform.OS == "" && d.Platform.Architecture == "" {
			unnamed = append(unnamed, d)
			continue
		}
		have = append(have, d.Platform.String())
		if r := fit(*d.Platform, want, f.Level); r > rank {
			best, rank = d, r
		}
	}
	if rank > 0 {
		return best, nil
	}
	for _, d := range unnamed[:min(len(unnamed), maxUnnamed)] {
		p, err := f.platformOf(ctx, c, d)
		if err != nil {
			return best, err
		}
		have = append(have, p.String())
		if r := fit(p, want, f.Level); r > rank {
			best, rank = d, r
		}
	}
	if rank > 0 {
		return best, nil
	}
	return best, f.noVersion(want, have)
}

// platformOf returns the platform that the config of a manifest names. For an index it is the zero platform, which
// suits any.
func (f *Finder) platformOf(ctx context.Context, c Content, d v1.Descriptor) (v1.Platform, error) {
	data, err := c.Manifest(ctx, d.Digest.String())
	if err != nil {
		return v1.Platform{}, err
	}
	m, err := parseManifest(data)
	if err != nil || m.Config == nil {
		return v1.Platform{}, err
	}
	if err := checkDescriptor("config", *m.Config, MaxConfig); err != nil {
		return v1.Platform{}, err
	}
	raw, err := f.readConfig(ctx, c, *m.Config)
	if err != nil {
		return v1.Platform{}, err
	}
	cfg, err := v1.ParseConfigFile(bytes.NewReader(raw))
	if err != nil {
		return v1.Platform{}, badImage("the config of the image is not valid: %w", notValid(err))
	}
	return v1.Platform{OS: cfg.OS, Architecture: cfg.Architecture, Variant: cfg.Variant, OSFeatures: cfg.OSFeatures}, nil
}

// noVersion returns the error for an image that has no version for a platform, only those in have.
func (f *Finder) noVersion(want v1.Platform, have []string) error {
	what := want.String()
	if want.Architecture == "amd64" && want.Variant == "" {
		what += fmt.Sprintf(" (up to v%d, which is what the CPU of guests here can do)", max(f.Level, 1))
	}
	if len(have) == 0 {
		return badImage("the index of the image is empty")
	}
	return banger.Errorf(banger.CodeNotFound, "the image has no version for %s, only for %.300s", what,
		strings.Join(have, ", ")).
		WithHint("VMs of this host cannot run it; look for another tag or another image")
}

// complete adds to img what only the index says of its platform, chosen, and returns an error if the image is for
// another platform than want. An index may be wrong about what it names.
func (f *Finder) complete(img *Image, chosen *v1.Platform, want v1.Platform) error {
	have, err := v1.ParsePlatform(img.Platform)
	if err != nil {
		return badImage("the config names the platform %.100q", img.Platform)
	}
	if chosen != nil && have.Variant == "" {
		have.Variant = chosen.Variant
	}
	if have.OS == "" && have.Architecture == "" { // as of images that were made by hand
		have.OS, have.Architecture = want.OS, want.Architecture
	}
	if fit(*have, want, f.Level) == 0 {
		return f.noVersion(want, []string{have.String()})
	}
	img.Platform = have.String()
	return nil
}
