package banger

import (
	"runtime/debug"
	"testing"
)

func TestTheVersionOfABuild(t *testing.T) {
	revision := debug.BuildSetting{Key: "vcs.revision", Value: "0123456789abcdef0123"}
	for name, c := range map[string]struct {
		info debug.BuildInfo
		ok   bool
		want string
	}{
		"no information":  {debug.BuildInfo{}, false, release + "-dev"},
		"go install":      {debug.BuildInfo{Main: debug.Module{Version: "v1.2.3"}}, true, "1.2.3"},
		"without a clone": {debug.BuildInfo{Main: debug.Module{Version: "(devel)"}}, true, release + "-dev"},
		"a commit": {debug.BuildInfo{Settings: []debug.BuildSetting{revision}}, true,
			release + "-dev+0123456789ab"},
		"a changed commit": {debug.BuildInfo{Settings: []debug.BuildSetting{revision,
			{Key: "vcs.modified", Value: "true"}}}, true, release + "-dev+0123456789ab.dirty"},
	} {
		if got := versionOf(&c.info, c.ok); got != c.want {
			t.Errorf("%s: %q, not %q", name, got, c.want)
		}
	}
}
