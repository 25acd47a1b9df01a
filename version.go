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
