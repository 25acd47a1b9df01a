package banger

import (
	"errors"
	"io"
	"io/fs"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// wantInvalid fails the test unless err is nil and ok is true, or err is one sentence of CodeInvalid.
func wantInvalid(t *testing.T, err error, ok bool) {
	t.Helper()
	switch {
	case ok && err != nil:
		t.Errorf("refused: %v", err)
	case !ok && err == nil:
		t.Error("accepted")
	case !ok && (CodeOf(err) != CodeInvalid || strings.ContainsAny(err.Error(), "\n\x00")):
		t.Errorf("%q has code %s, or is not one sentence", err, CodeOf(err))
	}
}

func TestNamesAreDNSLabels(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "0": true, "web-1": true, "a--b": true, "123": true, strings.Repeat("a", 63): true,
		"": false, strings.Repeat("a", 64): false, "-a": false, "a-": false, "-": false, "A": false, "a_b": false,
		"a.b": false,
		"a b": false, "a/b": false, "..": false, "a\n": false, "\na": false, "a\x00": false, "ä": false, "ａ": false,
	} {
		t.Run(name, func(t *testing.T) { wantInvalid(t, CheckName(name), ok) })
	}
}

func TestHostNamesAreLabelsWithDots(t *testing.T) {
	long := strings.Repeat("a", 31) + "." + strings.Repeat("b", 32)
	for name, ok := range map[string]bool{
		"a": true, "web.example.com": true, "Web": true, long: true,
		long + "c": false, "": false, ".": false, "a.": false, ".a": false, "a..b": false, "a_b": false, "-a.b": false,
		"a b": false, "a\n": false,
	} {
		t.Run(name, func(t *testing.T) { wantInvalid(t, CheckHostname(name), ok) })
	}
}

func TestValidID(t *testing.T) {
	for id, want := range map[string]bool{
		"0123456789ab": true, "": false, "0123456789a": false, "0123456789abc": false, "0123456789AB": false,
		"0123456789ag":   false,
		"0123456789ab\n": false, "../456789ab": false,
	} {
		t.Run(id, func(t *testing.T) {
			if got := ValidID(id); got != want {
				t.Errorf("ValidID is %v", got)
			}
		})
	}
}

func TestNewIDsAreValidAndDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id := NewID()
		if !ValidID(id) || seen[id] {
			t.Fatalf("%q is not valid or not new", id)
		}
		seen[id] = true
	}
}

func TestParseSize(t *testing.T) {
	const bad = 0
	for s, want := range map[string]int64{
		"512": 512, "536870912": 512 << 20, "1.5g": 3 << 29, "0.5k": 512, ".5m": 1 << 19, "1b": 1, "3k": 3 << 10,
		"512m": 512 << 20, "2g": 2 << 30, "1t": 1 << 40, "10GB": 10 << 30,
		"1GiB": 1 << 30,
		" 2g ": 2 << 30, "4194304t": 1 << 62, "007": 7,
		"": bad, "0": bad, "-1": bad, "1.5.5g": bad, "0.1b": bad, "-1.5g": bad, "1e3g": bad,
		"infg": bad, "nan": bad, ".": bad,
		"9999999999999.5t": bad, "g": bad, "1x": bad, "1gg": bad, "1 g": bad, "4194305t": bad,
		"1e3":                  bad,
		"0x10":                 bad,
		"9223372036854775807g": bad, "99999999999999999999": bad, "1ib": bad, "1bk": bad, "inf": bad, "1g\x00": bad,
		"٣g": bad,
	} {
		t.Run(s, func(t *testing.T) {
			got, err := ParseSize(s)
			wantInvalid(t, err, want != bad)
			if got != want {
				t.Errorf("%d bytes, not %d", got, want)
			}
		})
	}
}

func TestFormatSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536 << 20: "1.5 GiB", 512 << 20: "512 MiB", 16 << 40: "16 TiB",
		1 << 62: "4096 PiB",
	} {
		t.Run(want, func(t *testing.T) {
			if got := FormatSize(n); got != want {
				t.Errorf("%d is %q", n, got)
			}
		})
	}
}

func TestNormalizeFillsInDefaults(t *testing.T) {
	s := Spec{Image: "debian"}
	if err := s.Normalize(); err != nil {
		t.Fatal(err)
	}
	want := Spec{Image: "debian", Pull: PullMissing, VMM: VMMAuto, Init: InitAuto, Network: NetworkUser, Warm: WarmAuto,
		Policy: &Policy{Default: Allow},
		CPUs:   DefaultCPUs, Memory: DefaultMemory, Disk: DefaultDisk}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("it is %+v", s)
	}
	if err := s.Normalize(); err != nil || !reflect.DeepEqual(s, want) {
		t.Errorf("a second time it is %+v, %v", s, err)
	}
}

func TestNormalizeChecksEveryField(t *testing.T) {
	named := &Policy{Default: Allow, Rules: []Rule{{Action: Deny, To: "a.example"}}}
	for name, c := range map[string]struct {
		set func(*Spec)
		ok  bool
	}{
		"fewest cpus":          {func(s *Spec) { s.CPUs = 1 }, true},
		"most cpus":            {func(s *Spec) { s.CPUs = MaxCPUs }, true},
		"too many cpus":        {func(s *Spec) { s.CPUs = MaxCPUs + 1 }, false},
		"negative cpus":        {func(s *Spec) { s.CPUs = -1 }, false},
		"least memory":         {func(s *Spec) { s.Memory = MinMemory }, true},
		"too little memory":    {func(s *Spec) { s.Memory = MinMemory - 1 }, false},
		"most memory":          {func(s *Spec) { s.Memory = MaxMemory }, true},
		"too much memory":      {func(s *Spec) { s.Memory = MaxMemory + 1 }, false},
		"negative memory":      {func(s *Spec) { s.Memory = -1 << 30 }, false},
		"smallest disk":        {func(s *Spec) { s.Disk = MinDisk }, true},
		"too small a disk":     {func(s *Spec) { s.Disk = MinDisk - 1 }, false},
		"largest disk":         {func(s *Spec) { s.Disk = MaxDisk }, true},
		"too large a disk":     {func(s *Spec) { s.Disk = MaxDisk + 1 }, false},
		"no image":             {func(s *Spec) { s.Image = "" }, false},
		"bad name":             {func(s *Spec) { s.Name = "A" }, false},
		"bad host name":        {func(s *Spec) { s.Hostname = "a_b" }, false},
		"unknown pull":         {func(s *Spec) { s.Pull = "sometimes" }, false},
		"unknown vmm":          {func(s *Spec) { s.VMM = "xen" }, false},
		"unknown init":         {func(s *Spec) { s.Init = "runit" }, false},
		"only warm":            {func(s *Spec) { s.Warm = WarmOnly }, true},
		"unknown warm":         {func(s *Spec) { s.Warm = "sometimes" }, false},
		"a bridge":             {func(s *Spec) { s.Network = NetworkBridge }, true},
		"a named network":      {func(s *Spec) { s.Network = "team-a" }, true},
		"no network's name":    {func(s *Spec) { s.Network = "team a" }, false},
		"no network":           {func(s *Spec) { s.Network = NetworkNone }, true},
		"environment":          {func(s *Spec) { s.Env = []string{"A=", "B=c=d"} }, true},
		"environment, no =":    {func(s *Spec) { s.Env = []string{"A"} }, false},
		"environment, no name": {func(s *Spec) { s.Env = []string{"=a"} }, false},
		"empty environment":    {func(s *Spec) { s.Env = []string{""} }, false},
		"a stop signal":        {func(s *Spec) { s.StopSignal = "QUIT" }, true},
		"no stop signal":       {func(s *Spec) { s.StopSignal = "NOISE" }, false},
		"a stop at once":       {func(s *Spec) { s.StopTimeout = new(int) }, true},
		"half of two CPUs":     {func(s *Spec) { s.CPUs, s.Confine.CPU = 2, 1000 }, true},
		"more than its CPUs":   {func(s *Spec) { s.Confine.CPU = 1001 }, false},
		"next to no CPU":       {func(s *Spec) { s.Confine.CPU = 9 }, false},
		"one limit twice":      {func(s *Spec) { s.Confine.Ulimits = []Ulimit{{"core", 0, 0}, {"core", 1, 1}} }, false},
		"an unknown limit":     {func(s *Spec) { s.Confine.Ulimits = []Ulimit{{"as", 0, 0}} }, false},
		"too many open files":  {func(s *Spec) { s.Confine.Ulimits = []Ulimit{{"nofile", 0, MaxOpenFiles + 1}} }, false},
		"unknown capability":   {func(s *Spec) { s.Confine.CapDrop = []string{"FLY"} }, false},
		"a name server":        {func(s *Spec) { s.DNS = []string{"9.9.9.9"} }, true},
		"no name server":       {func(s *Spec) { s.DNS = []string{"dns.example"} }, false},
		"a name server, names": {func(s *Spec) { s.DNS, s.Policy = []string{"9.9.9.9"}, named }, false},
		"dns, no network":      {func(s *Spec) { s.DNS, s.Network = []string{"9.9.9.9"}, NetworkNone }, false},
		"no search domain":     {func(s *Spec) { s.DNSSearch = []string{"a b"} }, false},
		"no address of a host": {func(s *Spec) { s.Hosts = []HostEntry{{"db", "db"}} }, false},
		"a tmpfs at the root":  {func(s *Spec) { s.Tmpfs = []Tmpfs{{Path: "/x/.."}} }, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := Spec{Image: "debian"}
			c.set(&s)
			wantInvalid(t, s.Normalize(), c.ok)
		})
	}
}

func TestExecCheck(t *testing.T) {
	many := slices.Repeat([]string{"a=b"}, MaxArgs+1)
	for name, c := range map[string]struct {
		exec Exec
		ok   bool
	}{
		"a command":          {Exec{Args: []string{"ls", ""}}, true},
		"most arguments":     {Exec{Args: many[1:], Env: many[1:]}, true},
		"no command":         {Exec{}, false},
		"an empty command":   {Exec{Args: []string{"", "a"}}, false},
		"too many arguments": {Exec{Args: many}, false},
		"too many variables": {Exec{Args: []string{"a"}, Env: many}, false},
		"largest":            {Exec{Args: []string{strings.Repeat("a", MaxExecSize-3)}}, true}, // 3 ends, of Dir and User too
		"too large":          {Exec{Args: []string{strings.Repeat("a", MaxExecSize-2)}}, false},
		"NUL in an argument": {Exec{Args: []string{"a\x00b"}}, false},
		"NUL in a variable":  {Exec{Args: []string{"a"}, Env: []string{"A=\x00"}}, false},
		"NUL in the dir":     {Exec{Args: []string{"a"}, Dir: "/\x00"}, false},
		"NUL in the user":    {Exec{Args: []string{"a"}, User: "\x00"}, false},
		"odd variable":       {Exec{Args: []string{"a"}, Env: []string{"A"}}, false},
	} {
		t.Run(name, func(t *testing.T) { wantInvalid(t, c.exec.Check(), c.ok) })
	}
}

func TestExitStatusIsAShells(t *testing.T) {
	for exit, want := range map[Exit]int{{}: 0, {Code: 3}: 3, {Code: 255}: 255, {Signal: 9}: 137,
		{Signal: 15, Code: 1}: 143} {
		if got := exit.Status(); got != want {
			t.Errorf("%+v shows as %d, not %d", exit, got, want)
		}
	}
}

// TestTransitions checks the whole table: a state may change to those listed for it and to no others.
func TestTransitions(t *testing.T) {
	all := []State{StateCreated, StateStarting, StateRunning, StatePaused, StateStopping, StateStopped, StateFailed}
	for from, want := range map[State][]State{
		StateCreated:  {StateStarting, StateFailed},
		StateStarting: {StateRunning, StateStopping, StateStopped, StateFailed},
		StateRunning:  {StateStarting, StatePaused, StateStopping, StateStopped, StateFailed},
		StatePaused:   {StateRunning, StateStopping, StateStopped, StateFailed},
		StateStopping: {StateStopped, StateFailed},
		StateStopped:  {StateStarting, StateFailed},
		StateFailed:   {StateStarting},
		"unknown":     nil,
	} {
		t.Run(string(from), func(t *testing.T) {
			var got []State
			for _, to := range append(all, "unknown") {
				if from.CanBecome(to) {
					got = append(got, to)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("it may become %q, not %q", got, want)
			}
		})
	}
}

func TestOnlyTheseStatesAreAtRest(t *testing.T) {
	for s, want := range map[State]bool{StateCreated: true, StateStopped: true, StateFailed: true,
		StateStarting: false, StateRunning: false, StatePaused: false, StateStopping: false} {
		if s.AtRest() != want {
			t.Errorf("%s: at rest is %v", s, !want)
		}
	}
}

func TestErrorsAreSentencesWithCodes(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		text string
		code Code
		is   error // must be in the chain, unless nil
	}{
		"plain": {Errorf(CodeConflict, "%s is taken", "web"), "web is taken", CodeConflict, nil},
		"with a hint": {Errorf(CodeNotFound, "no VM web").WithHint("see: %s", "banger ls"), "no VM web (see: banger ls)",
			CodeNotFound, nil},
		"cause once": {Errorf(CodeDenied, "opening a: %w", fs.ErrPermission), "opening a: permission denied", CodeDenied,
			fs.ErrPermission},
		"cause of ours": {Errorf(CodeUnavailable, "starting: %w", Errorf(CodeNoSpace, "full: %w", io.ErrShortWrite)),
			"starting: full: short write", CodeUnavailable, io.ErrShortWrite},
		"wrapped":         {errors.Join(Errorf(CodeTimeout, "late")), "late", CodeTimeout, nil},
		"by hand":         {&Error{Code: CodeGuest, Message: "agent", Err: io.EOF}, "agent: EOF", CodeGuest, io.EOF},
		"another's error": {io.EOF, "EOF", CodeInternal, io.EOF},
	} {
		t.Run(name, func(t *testing.T) {
			if c.err.Error() != c.text || CodeOf(c.err) != c.code || c.is != nil && !errors.Is(c.err, c.is) {
				t.Errorf("%q of code %s, not %q of code %s, or it hides %v", c.err, CodeOf(c.err), c.text, c.code, c.is)
			}
		})
	}
}

func TestACauseStaysReachableByType(t *testing.T) {
	err := Errorf(CodeInternal, "a: %w", &fs.PathError{Op: "open", Path: "/p", Err: fs.ErrNotExist})
	if e, ok := errors.AsType[*fs.PathError](err); !ok || e.Path != "/p" {
		t.Errorf("no path in %v", err)
	}
}
