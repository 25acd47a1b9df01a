package spec

import (
	"fmt"
	"strings"
	"testing"

	"banger"
)

// wantInvalid fails the test unless err is nil and ok is true, or err is one sentence of CodeInvalid.
func wantInvalid(t *testing.T, err error, ok bool) {
	t.Helper()
	if ok != (err == nil) ||
		!ok && (banger.CodeOf(err) != banger.CodeInvalid || strings.ContainsAny(err.Error(), "\n\x00")) {
		t.Errorf("the error is %v", err)
	}
}

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
		u, err := ulimit(text)
		if want == "" && banger.CodeOf(err) != banger.CodeInvalid || want != "" && (err != nil || u.String() != want) {
			t.Errorf("%s is %s, %v, not %s", text, u, err, want)
		}
	}
}

// TestPlacesAndNamesOfAGuest covers --tmpfs and --add-host.
func TestPlacesAndNamesOfAGuest(t *testing.T) {
	for text, ok := range map[string]bool{
		"/scratch": true, "/scratch:size=64m,mode=1777,exec": true, "/a:uid=1000,gid=7,nr_inodes=10k": true,
		"/": false, "scratch": false, "": false, "/a:loop": false, "/a:size=64x": false, "/a:": false,
		"/a\n": false, "/a:rw,": false,
	} {
		if _, err := tmpfs(text); (err == nil) != ok {
			t.Errorf("the tmpfs %q gives %v", text, err)
		}
	}
	for text, want := range map[string]string{
		"db:10.0.0.7": "{db 10.0.0.7}", "db=10.0.0.7": "{db 10.0.0.7}", "db:::1": "{db ::1}", "db:[::1]": "{db ::1}",
		"me.local:host-gateway": "{me.local host-gateway}", "db": "", "db:": "", ":10.0.0.7": "", "a b:10.0.0.7": "",
		"db:10.0.0": "", "db:10.0.0.7 evil": "", "db\n:10.0.0.7": "",
	} {
		e, err := hostEntry(text)
		if want == "" && banger.CodeOf(err) != banger.CodeInvalid || want != "" && (err != nil || fmt.Sprint(e) != want) {
			t.Errorf("%q is %v, %v, not %s", text, e, err, want)
		}
	}
}

// TestChanges has only what the user says.
func TestChanges(t *testing.T) {
	u, err := Changes{CPUs: "1.5", Memory: "2g", Restart: "on-failure:3", TTL: "none", Idle: "15m"}.Resolve()
	if err != nil || *u.CPUs != 2 || u.CPU != 1500 || *u.Memory != 2<<30 || u.Restart.Max != 3 || u.TTL.Seconds != 0 ||
		u.Idle.Seconds != 900 {
		t.Errorf("it is %+v, %v", u, err)
	}
	if u, err := (Changes{}).Resolve(); err != nil || u != (banger.Update{}) {
		t.Errorf("without words it is %+v, %v", u, err)
	}
	for _, c := range []Changes{{CPUs: "x"}, {Memory: "x"}, {Restart: "x"}, {TTL: "x"}, {Idle: "x"}} {
		_, err := c.Resolve()
		wantInvalid(t, err, false)
	}
}
