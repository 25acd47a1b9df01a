package banger_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"banger"
)

// controls are texts with control characters, which have no meaning in one line of text.
var controls = []string{"\x00", "\n", "\r", "\t", "\x1b[2J", "\x7f", "\u0085", "\u009b"}

// fieldOf says how to set a field to a text, and which of the controls the field allows.
type fieldOf[T any] struct {
	set func(v *T, text string)
	may string
}

var specFields = map[string]fieldOf[banger.Spec]{
	"Name":       {func(s *banger.Spec, t string) { s.Name = "a" + t }, ""},
	"Image":      {func(s *banger.Spec, t string) { s.Image = "debian" + t }, ""},
	"Pull":       {func(s *banger.Spec, t string) { s.Pull = banger.PullNever + t }, ""},
	"Platform":   {func(s *banger.Spec, t string) { s.Platform = "linux/amd64" + t }, ""},
	"Kernel":     {func(s *banger.Spec, t string) { s.Kernel = "6.1" + t }, ""},
	"VMM":        {func(s *banger.Spec, t string) { s.VMM = banger.VMMQEMU + t }, ""},
	"CPUModel":   {func(s *banger.Spec, t string) { s.CPUModel = "EPYC" + t }, ""},
	"Nested":     {func(s *banger.Spec, t string) { s.Nested = banger.NestedOn + t }, ""},
	"Hostname":   {func(s *banger.Spec, t string) { s.Hostname = "h" + t }, ""},
	"Labels":     {func(s *banger.Spec, t string) { s.Labels = map[string]string{"a" + t: "b"} }, ""},
	"Warm":       {func(s *banger.Spec, t string) { s.Warm = banger.WarmAuto + t }, ""},
	"Init":       {func(s *banger.Spec, t string) { s.Init = banger.InitAuto + t }, ""},
	"Network":    {func(s *banger.Spec, t string) { s.Network = banger.NetworkUser + t }, ""},
	"Policy":     {func(s *banger.Spec, t string) { s.Policy = &banger.Policy{Default: banger.Allow + t} }, ""},
	"Forwards":   {func(s *banger.Spec, t string) { s.Forwards = []banger.Forward{{"tcp", "127.0.0.1" + t, 0, 80}} }, ""},
	"CA":         {func(s *banger.Spec, t string) { s.CA = t }, ""},
	"Entrypoint": {func(s *banger.Spec, t string) { s.Entrypoint = []string{"sh" + t} }, "\n\r\t\x1b\x7f\u0085\u009b"},
	"Cmd":        {func(s *banger.Spec, t string) { s.Cmd = []string{"sh", t} }, "\n\r\t\x1b\x7f\u0085\u009b"},
	"Env":        {func(s *banger.Spec, t string) { s.Env = []string{"K=v" + t} }, "\n\r\t\x1b\x7f\u0085\u009b"},
	"SecretEnv":  {func(s *banger.Spec, t string) { s.SecretEnv = []string{"K" + t} }, ""},
	"WorkingDir": {func(s *banger.Spec, t string) { s.WorkingDir = "/a" + t }, ""},
	"User":       {func(s *banger.Spec, t string) { s.User = "root" + t }, ""},
	"Tmpfs":      {func(s *banger.Spec, t string) { s.Tmpfs = []banger.Tmpfs{{Path: "/a" + t}} }, ""},
	"Hosts":      {func(s *banger.Spec, t string) { s.Hosts = []banger.HostEntry{{"db" + t, "10.0.0.7"}} }, ""},
	"DNS":        {func(s *banger.Spec, t string) { s.DNS = []string{"9.9.9.9" + t} }, ""},
	"DNSSearch":  {func(s *banger.Spec, t string) { s.DNSSearch = []string{"example" + t} }, ""},
	"StopSignal": {func(s *banger.Spec, t string) { s.StopSignal = "TERM" + t }, ""},

	"a restart policy":      {func(s *banger.Spec, t string) { s.Restart.Name = banger.RestartAlways + t }, ""},
	"the end of idleness":   {func(s *banger.Spec, t string) { s.Idle = banger.Timer{60, banger.ActionStop + t} }, ""},
	"the end of a lifetime": {func(s *banger.Spec, t string) { s.TTL = banger.Timer{60, banger.ActionStop + t} }, ""},

	"an option of a tmpfs": {func(s *banger.Spec, t string) {
		s.Tmpfs = []banger.Tmpfs{{Path: "/a", Options: []string{"ro" + t}}}
	}, ""},
	"a host's address": {func(s *banger.Spec, t string) { s.Hosts = []banger.HostEntry{{"db", "::1" + t}} }, ""},
	"a limit's name": {func(s *banger.Spec, t string) {
		s.Confine.Ulimits = []banger.Ulimit{{"core" + t, 0, 0}}
	}, ""},
	"Ready": {func(s *banger.Spec, t string) { s.Ready = &banger.Probe{Check: "cmd:test -e /x" + t} },
		"\n\r\t\x1b\x7f\u0085\u009b"},
	"a capability":      {func(s *banger.Spec, t string) { s.Confine.CapDrop = []string{"KILL" + t} }, ""},
	"a label's value":   {func(s *banger.Spec, t string) { s.Labels = map[string]string{"a": "b" + t} }, ""},
	"a variable's name": {func(s *banger.Spec, t string) { s.Env = []string{"K" + t + "=v"} }, ""},
	"a rule's action":   {func(s *banger.Spec, t string) { s.Policy = rule("allow"+t, "any", "") }, ""},
	"a rule's target":   {func(s *banger.Spec, t string) { s.Policy = rule("allow", "a.example"+t, "") }, ""},
	"a rule's protocol": {func(s *banger.Spec, t string) { s.Policy = rule("allow", "any", "tcp"+t) }, ""},
	"a forward's protocol": {func(s *banger.Spec, t string) {
		s.Forwards = []banger.Forward{{"tcp" + t, "127.0.0.1", 0,
			80}}
	}, ""},
}

var execFields = map[string]fieldOf[banger.Exec]{
	"Args": {func(e *banger.Exec, t string) { e.Args = []string{"sh", t} }, "\n\r\t\x1b\x7f\u0085\u009b"},
	"Env":  {func(e *banger.Exec, t string) { e.Env = []string{"K=v" + t} }, "\n\r\t\x1b\x7f\u0085\u009b"},
	"Dir":  {func(e *banger.Exec, t string) { e.Dir = "/a" + t }, ""},
	"User": {func(e *banger.Exec, t string) { e.User = "root" + t }, ""},

	"Secrets":           {func(e *banger.Exec, t string) { e.Secrets = []string{"K" + t} }, ""},
	"a variable's name": {func(e *banger.Exec, t string) { e.Env = []string{"K" + t + "=v"} }, ""},
}

func rule(action, to, protocol string) *banger.Policy {
	return &banger.Policy{Default: banger.Deny, Rules: []banger.Rule{{Action: action, To: to, Protocol: protocol}}}
}

func TestControlCharactersAreRefusedWhereTheyMeanNothing(t *testing.T) {
	tryFields(t, specFields, func(s *banger.Spec) error {
		if s.Image == "" {
			s.Image = "debian"
		}
		return s.Normalize()
	})
	tryFields(t, execFields, func(e *banger.Exec) error {
		if e.Args == nil {
			e.Args = []string{"sh"}
		}
		return e.Check()
	})
}

func tryFields[T any](t *testing.T, fields map[string]fieldOf[T], check func(*T) error) {
	t.Helper()
	of := reflect.TypeFor[T]()
	for i := range of.NumField() {
		f := of.Field(i)
		kinds := []reflect.Kind{reflect.String, reflect.Slice, reflect.Map, reflect.Pointer}
		text := f.Type != reflect.TypeFor[*int]() && slices.Contains(kinds, f.Type.Kind())
		if _, listed := fields[f.Name]; text && !listed {
			t.Errorf("%s.%s is not tried: list it, and which control characters it may have", of.Name(), f.Name)
		}
	}
	for name, f := range fields {
		var plain T
		if f.set(&plain, ""); name != "CA" && check(&plain) != nil {
			t.Errorf("%s.%s without control characters: %v", of.Name(), name, check(&plain))
		}
		for _, c := range controls {
			var v T
			f.set(&v, c)
			err := check(&v)
			if may := strings.Contains(f.may, string([]rune(c)[0])); (err == nil) != may ||
				err != nil && banger.CodeOf(err) != banger.CodeInvalid {
				t.Errorf("%s.%s with %q: %v", of.Name(), name, c, err)
			}
		}
	}
}

// TestBytesThatAreNotTextAreRefused checks all words that go to a guest: JSON would replace such bytes silently.
func TestBytesThatAreNotTextAreRefused(t *testing.T) {
	const bad = "a\xff"
	good := banger.Exec{Args: []string{"true"}}
	for name, e := range map[string]banger.Exec{
		"arguments":   {Args: []string{"true", bad}},
		"environment": {Args: good.Args, Env: []string{"A=" + bad}},
		"directory":   {Args: good.Args, Dir: "/" + bad},
		"user":        {Args: good.Args, User: bad},
	} {
		if err := e.Check(); banger.CodeOf(err) != banger.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, s := range map[string]banger.Spec{
		"command":     {Image: "x", Cmd: []string{bad}},
		"entrypoint":  {Image: "x", Entrypoint: []string{bad}},
		"environment": {Image: "x", Env: []string{"A=" + bad}},
		"directory":   {Image: "x", WorkingDir: "/" + bad},
		"label":       {Image: "x", Labels: map[string]string{"a": bad}},
	} {
		if err := s.Normalize(); banger.CodeOf(err) != banger.CodeInvalid {
			t.Errorf("%s of a VM: %v", name, err)
		}
	}
	many := make([]string, 20_000)
	for i := range many {
		many[i] = "12345678"
	}
	if err := (&banger.Exec{Args: many}).Check(); err != nil {
		t.Errorf("20,000 arguments: %v", err)
	}
}
