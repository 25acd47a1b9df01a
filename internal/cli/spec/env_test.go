package spec

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger"
)

// TestEnv checks docker's rules for environments.
func TestEnv(t *testing.T) {
	t.Setenv("OURS", "shell=value")
	t.Setenv("EMPTY", "")
	for name, c := range map[string]struct {
		files []string // their content
		flags []string
		want  string
	}{
		"nothing":                {nil, nil, ""},
		"a value":                {nil, []string{"A=1=2"}, "A=1=2"},
		"an empty value":         {nil, []string{"A="}, "A="},
		"the shell's value":      {nil, []string{"OURS", "EMPTY"}, "OURS=shell=value|EMPTY="},
		"what the shell has not": {nil, []string{"NO_SUCH_VARIABLE", "A=1"}, "A=1"},
		"a file": {[]string{"# no\n\n  # nor this\n A=1 \n\tOURS\nNO_SUCH_VARIABLE\n"}, nil,
			"A=1 |OURS=shell=value"},
		"no line end":              {[]string{"A=1"}, nil, "A=1"},
		"flags behind files":       {[]string{"A=1\n", "A=2\n"}, []string{"A=3"}, "A=1|A=2|A=3"},
		"a comment behind a value": {[]string{"A=1 # part of it\n"}, nil, "A=1 # part of it"},
	} {
		t.Run(name, func(t *testing.T) {
			var files []string
			for _, text := range c.files {
				path := filepath.Join(t.TempDir(), "env")
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				files = append(files, path)
			}
			env, err := Env(files, c.flags)
			if got := strings.Join(env, "|"); got != c.want || err != nil {
				t.Errorf("it is %q, %v, not %q", got, err, c.want)
			}
		})
	}
}

// TestEnvFilesThatCannotBeRead includes a file with a line that is too long.
func TestEnvFilesThatCannotBeRead(t *testing.T) {
	long := filepath.Join(t.TempDir(), "long")
	if err := os.WriteFile(long, []byte("A="+strings.Repeat("x", 1<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{long, "/no/such", t.TempDir()} {
		if _, err := Env([]string{name}, nil); banger.CodeOf(err) != banger.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTheOrderOfRules: what is denied on the command line comes first, then proxies, then what is allowed, then the
// policy.
func TestTheOrderOfRules(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy")
	if err := os.WriteFile(file, []byte("allow 10.0.0.1\ndefault deny\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	options := func(change func(*Options)) Options {
		o := Options{Memory: "512m", Disk: "1g"}
		o.CPUs, o.Spec.Network = "1", banger.NetworkUser
		change(&o)
		return o
	}
	const all = "deny a.example|allow proxy.example tcp:80|allow b.example|allow 10.0.0.1|default deny"
	for want, o := range map[string]Options{
		all: options(func(o *Options) {
			o.Deny, o.Allow = []string{"a.example"}, []string{"b.example"}
			o.Policy, o.Proxy = file, "http://proxy.example"
		}),
		"deny any udp|default allow": options(func(o *Options) { o.Deny = []string{"any udp"} }),
		"allow a.example|default deny": options(func(o *Options) {
			o.Allow, o.Spec.Untrusted = []string{"a.example"}, true
		}),
		"default deny": options(func(o *Options) { o.Spec.Untrusted = true }),
	} {
		s, err := o.Resolve("image", []string{"--", "true"})
		if err == nil {
			err = s.Normalize()
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.ReplaceAll(strings.TrimSpace(s.Policy.String()), "\n", "|"); got != want {
			t.Errorf("the policy is %s, not %s", got, want)
		}
		if len(s.Cmd) != 1 || s.Cmd[0] != "true" {
			t.Errorf("the command is %q", s.Cmd)
		}
	}
}

// TestReferencesBecomeAbsolute, because the daemon has another working directory.
func TestReferencesBecomeAbsolute(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]string{
		"debian":            "debian",
		"oci:dir:tag":       "oci:" + here + "/dir:tag",
		"oci-archive:file":  "oci-archive:" + here + "/file",
		"docker-archive:/x": "docker-archive:/x",
		"oci:":              "oci:",
	} {
		if got := AbsoluteReference(ref); got != want {
			t.Errorf("%s is %s, not %s", ref, got, want)
		}
	}
}

// TestEnvFilesAreReadAsDockerDoes covers what editors and hands put into such files.
func TestEnvFilesAreReadAsDockerDoes(t *testing.T) {
	for text, want := range map[string]string{
		"\xef\xbb\xbfA=1\nB=2":      "A=1 B=2",
		"  A= 1 \n\t# no\n\nB=\xef": "A= 1  B=\xef",
		"A=\xef\xbb\xbf1":           "A=\xef\xbb\xbf1",
		"A b=1":                     "",
		"A =1":                      "",
		"A=1\nexport B=2":           "",
	} {
		list, err := readEnv(strings.NewReader(text))
		if got := strings.Join(list, " "); got != want || (err != nil) != (want == "") {
			t.Errorf("%q gives %q, %v", text, got, err)
		}
	}
}
