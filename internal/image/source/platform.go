package source

import (
	"runtime"
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
			WithHint("write it like linux/amd64")
	}
	return *p, nil
}

// CheckPlatform returns an error if img is not for a platform.
func CheckPlatform(img banger.Image, platform v1.Platform) error {
	have, err := v1.ParsePlatform(img.Platform)
	if err != nil || !have.Satisfies(platform) {
		return banger.Errorf(banger.CodeNotFound, "image %s is stored for %s, not for %s", img.Reference, img.Platform,
			platform.String())
	}
	return nil
}

// choose returns the manifest in an index that fits the platform best. Of several equal ones it returns the first.
func choose(list []v1.Descriptor, platform v1.Platform) (v1.Descriptor, error) {
	var have []string
	for _, d := range list {
		if d.Platform == nil || d.Platform.Satisfies(platform) {
			return d, nil
		}
		have = append(have, d.Platform.String())
	}
	return v1.Descriptor{}, banger.Errorf(banger.CodeNotFound, "the image has no version for %s, only for %.300s",
		platform.String(), strings.Join(have, ", ")).
		WithHint("choose another with --platform")
}
