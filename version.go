package banger

import (
	"cmp"
	"runtime/debug"
	"strings"
)

// release is the release that this tree becomes.
const release = "0.1.0"

// build is the version that the build gives: -ldflags "-X banger.build=1.2.3".
var build string

// Version is the product's version, as `banger version` shows it: that of the build, or release with the commit.
var Version = cmp.Or(build, versionOf(debug.ReadBuildInfo()))

// versionOf returns the version of a build that was given none, as `go build` and `go install` make it.
func versionOf(info *debug.BuildInfo, ok bool) string {
	if !ok {
		return release + "-dev"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return strings.TrimPrefix(v, "v")
	}
	v, dirty := release+"-dev", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && len(s.Value) >= 12:
			v += "+" + s.Value[:12]
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = ".dirty"
		}
	}
	return v + dirty
}

// Versions are the versions of a protocol that one end speaks. An end from before the range says 0 as its oldest
// version, which means that it speaks only the newest.
type Versions struct{ Newest, Oldest int }

// Meet reports whether two ends have a version in common. One of them may be hostile, so its range may be upside down.
func (v Versions) Meet(other Versions) bool {
	return min(v.Newest, other.Newest) >= max(v.oldest(), other.oldest())
}

func (v Versions) oldest() int { return cmp.Or(v.Oldest, v.Newest) }
