package resolve

import (
	"runtime"
	"slices"
	"strings"
	"testing"

	"banger"
)

// TestTheMainCommandFollowsDockersRules compares with docker's reference: an entrypoint of the user clears the image's
// command, a command of the user replaces the image's command.
func TestTheMainCommandFollowsDockersRules(t *testing.T) {
	both := banger.ImageConfig{Entrypoint: []string{"/entry"}, Cmd: []string{"one", "two"}}
	shell := banger.ImageConfig{Cmd: []string{"/bin/bash"}}
	for name, c := range map[string]struct {
		spec   banger.Spec
		config banger.ImageConfig
		init   bool   // the image is systemd
		want   string // "" means no main command
	}{
		"entrypoint and command of the image": {banger.Spec{}, both, false, "/entry one two"},
		"a command of the user":               {banger.Spec{Cmd: []string{"three"}}, both, false, "/entry three"},
		"an entrypoint of the user":           {banger.Spec{Entrypoint: []string{"/mine"}}, both, false, "/mine"},
		"an entrypoint that is empty": {banger.Spec{Entrypoint: []string{""}, Cmd: []string{"ls"}}, both, false,
			"ls"},
		"a bare shell in the background":    {banger.Spec{}, shell, false, ""},
		"a bare shell on a terminal":        {banger.Spec{TTY: true}, shell, false, "/bin/bash"},
		"a bare shell that the user chose":  {banger.Spec{Cmd: []string{"sh"}}, shell, false, "sh"},
		"no entrypoint and no command":      {banger.Spec{Entrypoint: []string{""}}, both, false, ""},
		"nothing at all":                    {banger.Spec{}, banger.ImageConfig{}, false, ""},
		"nothing at all, on a terminal":     {banger.Spec{TTY: true}, banger.ImageConfig{}, false, "/bin/sh"},
		"an image with an init of its own":  {banger.Spec{}, both, true, ""},
		"a command beside the image's init": {banger.Spec{Cmd: []string{"ls"}}, both, true, "/entry ls"},
	} {
		t.Run(name, func(t *testing.T) {
			c.spec.Init = banger.InitAuto
			e, err := Main(c.spec, banger.Image{Config: c.config, Systemd: c.init})
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if e != nil {
				got = strings.Join(e.Args, " ")
			}
			if got != c.want {
				t.Errorf("the main command is %q, not %q", got, c.want)
			}
		})
	}
	_, err := Main(banger.Spec{Attach: true, Image: "empty"}, banger.Image{})
	if banger.CodeOf(err) != banger.CodeInvalid {
		t.Errorf("a client that waits for no command gets %v", err)
	}
}

// TestTheUsersEnvironmentWins checks that variables keep their place, and that the last value of a name counts.
func TestTheUsersEnvironmentWins(t *testing.T) {
	img := banger.Image{Config: banger.ImageConfig{Env: []string{"PATH=/bin", "A=image"}, WorkingDir: "/app", User: "www"}}
	e := Defaults(banger.Spec{Env: []string{"B=user", "A=user"}}, img)
	if want := []string{"PATH=/bin", "A=user", "B=user"}; !slices.Equal(e.Env, want) {
		t.Errorf("the environment is %q, not %q", e.Env, want)
	}
	if e.Dir != "/app" || e.User != "www" {
		t.Errorf("commands start in %q as %q", e.Dir, e.User)
	}
	e = Defaults(banger.Spec{WorkingDir: "/", User: "0", CA: "-"}, img)
	if e.Dir != "/" || e.User != "0" {
		t.Errorf("the user's choice is ignored: %q, %q", e.Dir, e.User)
	}
	if !slices.ContainsFunc(e.Env, func(s string) bool { return strings.HasPrefix(s, "NODE_EXTRA_CA_CERTS=") }) {
		t.Errorf("Node does not learn of the certificates: %q", e.Env)
	}
}

func TestImagesThatNoGuestCanRunAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		image banger.Image
		ok    bool
		spec  banger.Spec
	}{
		"this CPU":        {banger.Image{Platform: "linux/" + runtime.GOARCH}, true, banger.Spec{}},
		"no platform":     {banger.Image{}, true, banger.Spec{}},
		"another CPU":     {banger.Image{Platform: "linux/s390x"}, false, banger.Spec{}},
		"a stop signal":   {banger.Image{Config: banger.ImageConfig{StopSignal: "SIGQUIT"}}, true, banger.Spec{}},
		"no such signal":  {banger.Image{Config: banger.ImageConfig{StopSignal: "SIGNOTHING"}}, false, banger.Spec{}},
		"a signal number": {banger.Image{Config: banger.ImageConfig{StopSignal: "3"}}, true, banger.Spec{}},
		"a booted init":   {banger.Image{}, true, banger.Spec{Warm: banger.WarmBooted, Init: banger.InitImage}},
		"the agent boots": {banger.Image{}, false, banger.Spec{Warm: banger.WarmBooted, Init: banger.InitAgent}},
	} {
		if err := CheckImage(c.spec, c.image); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDirectoriesAreThoseOfDocker lists what a new container has: its working directory and its volumes.
func TestDirectoriesAreThoseOfDocker(t *testing.T) {
	img := banger.Image{Config: banger.ImageConfig{WorkingDir: "app", Volumes: []string{"/data", "/data/../log", "/"}}}
	if got := Dirs(banger.Spec{}, img); !slices.Equal(got, []string{"/app", "/data", "/log"}) {
		t.Errorf("the directories are %q", got)
	}
	if got := Dirs(banger.Spec{WorkingDir: "/data"}, img); !slices.Equal(got, []string{"/data", "/log"}) {
		t.Errorf("with a directory of the user they are %q", got)
	}
	if got := Dirs(banger.Spec{}, banger.Image{}); len(got) != 0 {
		t.Errorf("without any they are %q", got)
	}
}

// TestAWorkspaceTakesThePlaceOfTheImagesDirectory checks whose directory commands start in when there is a workspace.
func TestAWorkspaceTakesThePlaceOfTheImagesDirectory(t *testing.T) {
	img := banger.Image{Config: banger.ImageConfig{WorkingDir: "/app"}}
	if e := Defaults(banger.Spec{}, img); e.Dir != "/app" || !e.Workspace {
		t.Errorf("the image's directory: %+v", e)
	}
	if e := Defaults(banger.Spec{WorkingDir: "/mine"}, img); e.Dir != "/mine" || e.Workspace {
		t.Errorf("the VM's own directory: %+v", e)
	}
}

func TestWhichProbeAVMHas(t *testing.T) {
	own, image := &banger.Probe{Check: "tcp:80"}, &banger.Probe{Check: "cmd:true"}
	for name, c := range map[string]struct {
		spec   banger.Spec
		health *banger.Probe
		want   *banger.Probe
	}{
		"none":                     {banger.Spec{}, nil, nil},
		"that of the image":        {banger.Spec{}, image, image},
		"that of the user":         {banger.Spec{Ready: own}, image, own},
		"none, as the user wishes": {banger.Spec{NoReady: true}, image, nil},
		"one that cannot be tried": {banger.Spec{}, &banger.Probe{Check: "x"}, nil},
	} {
		img := banger.Image{Config: banger.ImageConfig{Health: c.health}}
		if got := Guest(c.spec, img).Ready; got != c.want {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
