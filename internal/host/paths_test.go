package host_test

import (
	"os/user"
	"strings"
	"testing"

	"banger"
	"banger/internal/host"
)

func TestFindPaths(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	root := me.Uid == "0"
	at := func(forRoot, forUser string) string {
		if root {
			return forRoot
		}
		return forUser
	}
	tmp := "/tmp/banger-" + me.Uid
	for name, tt := range map[string]struct {
		env        map[string]string
		state, run string // "" for an error
		say        string
	}{
		"ours come first": {map[string]string{"BANGER_STATE_DIR": "/s/", "BANGER_RUN_DIR": "/r",
			"XDG_DATA_HOME": "/d", "HOME": "/h"}, "/s", "/r", ""},
		"a relative state directory": {map[string]string{"BANGER_STATE_DIR": "s"}, "", "",
			`BANGER_STATE_DIR is "s", and a relative path`},
		"a relative run directory": {map[string]string{"BANGER_RUN_DIR": "./r"}, "", "",
			`BANGER_RUN_DIR is "./r", and a relative path`},
		"the root directory": {map[string]string{"BANGER_STATE_DIR": "/x/.."}, "", "", "is the root directory"},
		"a line feed":        {map[string]string{"BANGER_STATE_DIR": "/s\n"}, "", "", "control character"},
		"no UTF-8":           {map[string]string{"BANGER_RUN_DIR": "/\xff"}, "", "", "not UTF-8"},
		"too long for sockets": {map[string]string{"BANGER_RUN_DIR": "/" + strings.Repeat("r", 100)}, "", "",
			"too long for sockets"},
		"XDG": {map[string]string{"XDG_DATA_HOME": "/d", "XDG_RUNTIME_DIR": "/x", "HOME": "/h"},
			at("/var/lib/banger", "/d/banger"), at("/run/banger", "/x/banger"), ""},
		"XDG is ignored if relative": {map[string]string{"XDG_DATA_HOME": "d", "XDG_RUNTIME_DIR": "x", "HOME": "/h"},
			at("/var/lib/banger", "/h/.local/share/banger"), at("/run/banger", tmp), ""},
		"without HOME": {map[string]string{"BANGER_RUN_DIR": "/r"},
			at("/var/lib/banger", me.HomeDir+"/.local/share/banger"), "/r", ""},
		"TMPDIR is ignored if no path": {map[string]string{"TMPDIR": "tmp", "HOME": "/h"},
			at("/var/lib/banger", "/h/.local/share/banger"), at("/run/banger", tmp), ""},
	} {
		t.Run(name, func(t *testing.T) {
			for _, v := range []string{"BANGER_STATE_DIR", "BANGER_RUN_DIR", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "HOME",
				"TMPDIR"} {
				t.Setenv(v, tt.env[v])
			}
			p, err := host.FindPaths()
			if tt.say != "" {
				if banger.CodeOf(err) != banger.CodeInvalid || !strings.Contains(err.Error(), tt.say) {
					t.Errorf("it says %v", err)
				}
				return
			}
			if err != nil || p.State != tt.state || p.Run != tt.run {
				t.Errorf("state %q, run %q, %v", p.State, p.Run, err)
			}
		})
	}
}

// TestTheConfigurationIsInTheUsersHome, for root too.
func TestTheConfigurationIsInTheUsersHome(t *testing.T) {
	for _, c := range []struct{ xdg, home, want string }{
		{"/x", "/h", "/x/banger/config.toml"},
		{"x", "/h", "/h/.config/banger/config.toml"},
		{"", "/h", "/h/.config/banger/config.toml"},
		{"", "h", ""},
	} {
		t.Setenv("BANGER_STATE_DIR", "/s")
		t.Setenv("BANGER_RUN_DIR", "/r")
		t.Setenv("XDG_CONFIG_HOME", c.xdg)
		t.Setenv("HOME", c.home)
		if p, err := host.FindPaths(); err != nil || p.Config != c.want {
			t.Errorf("with %+v it is %q, %v", c, p.Config, err)
		}
	}
}
