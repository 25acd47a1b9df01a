package banger

import (
	"fmt"
	"testing"
)

// TestUlimitsAreReadAsDockerDoes covers its forms, and what the kernel would refuse later.
func TestUlimitsAreReadAsDockerDoes(t *testing.T) {
	for text, want := range map[string]string{ // "" means an error
		"nofile=1024":               "nofile=1024:1024",
		"nofile=1024:2048":          "nofile=1024:2048",
		"core=-1":                   "core=-1:-1",
		"stack=0:-1":                "stack=0:-1",
		"nofile=-1":                 "",
		"nofile=2048:1024":          "",
		"core=-1:5":                 "",
		"nofile=1:2000000":          "",
		"nofile":                    "",
		"nofile=":                   "",
		"nofile=1:":                 "",
		"nofile=x":                  "",
		"as=1":                      "",
		"nofile=1:2:3":              "",
		"core=-2":                   "",
		"=1":                        "",
		"NOFILE=1":                  "",
		"core=99999999999999999999": "",
	} {
		u, err := ParseUlimit(text)
		if want == "" && CodeOf(err) != CodeInvalid || want != "" && (err != nil || u.String() != want) {
			t.Errorf("%s is %s, %v, not %s", text, u, err, want)
		}
	}
}

// TestCapabilitiesAreDroppedAsDockerDoes: what is added stays, in any order and in any way of writing.
func TestCapabilitiesAreDroppedAsDockerDoes(t *testing.T) {
	for _, c := range []struct {
		drop, add []string
		want      string
	}{
		{nil, nil, "[]"},
		{nil, []string{"SYS_ADMIN"}, "[]"},
		{[]string{"CHOWN"}, nil, "[0]"},
		{[]string{"cap_net_raw", "CAP_KILL"}, nil, "[5 13]"},
		{[]string{"CHOWN", "KILL"}, []string{"chown"}, "[5]"},
		{[]string{"ALL"}, []string{"ALL"}, "[]"},
	} {
		if got, err := DroppedCapabilities(c.drop, c.add); fmt.Sprint(got) != c.want || err != nil {
			t.Errorf("%v without %v is %v, %v", c.drop, c.add, got, err)
		}
	}
	all, err := DroppedCapabilities([]string{"all"}, []string{"CHECKPOINT_RESTORE"})
	if len(all) != 40 || all[39] != 39 || err != nil {
		t.Errorf("all but the last are %v, %v", all, err)
	}
	if _, err := DroppedCapabilities(nil, []string{"FLY"}); CodeOf(err) != CodeInvalid {
		t.Errorf("an unknown capability gives %v", err)
	}
}

// TestPlacesAndNamesOfAGuest covers --tmpfs and --add-host.
func TestPlacesAndNamesOfAGuest(t *testing.T) {
	for text, ok := range map[string]bool{
		"/scratch": true, "/scratch:size=64m,mode=1777,exec": true, "/a:uid=1000,gid=7,nr_inodes=10k": true,
		"/": false, "scratch": false, "": false, "/a:loop": false, "/a:size=64x": false, "/a:": false,
		"/a\n": false, "/a:rw,": false,
	} {
		if _, err := ParseTmpfs(text); (err == nil) != ok {
			t.Errorf("the tmpfs %q gives %v", text, err)
		}
	}
	for text, want := range map[string]string{
		"db:10.0.0.7": "{db 10.0.0.7}", "db=10.0.0.7": "{db 10.0.0.7}", "db:::1": "{db ::1}", "db:[::1]": "{db ::1}",
		"me.local:host-gateway": "{me.local host-gateway}", "db": "", "db:": "", ":10.0.0.7": "", "a b:10.0.0.7": "",
		"db:10.0.0": "", "db:10.0.0.7 evil": "", "db\n:10.0.0.7": "",
	} {
		e, err := ParseHostEntry(text)
		if want == "" && CodeOf(err) != CodeInvalid || want != "" && (err != nil || fmt.Sprint(e) != want) {
			t.Errorf("%q is %v, %v, not %s", text, e, err, want)
		}
	}
}
