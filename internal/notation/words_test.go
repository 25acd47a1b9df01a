package notation

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

func TestParseRestart(t *testing.T) {
	for text, want := range map[string]banger.RestartPolicy{
		"no":                 {Name: banger.RestartNo},
		"always":             {Name: banger.RestartAlways},
		"on-failure":         {Name: banger.RestartOnFailure},
		"on-failure:3":       {Name: banger.RestartOnFailure, Max: 3},
		"unless-stopped":     {},
		"on-failure:0":       {},
		"on-failure:-1":      {},
		"on-failure:":        {},
		"on-failure:x":       {},
		"on-failure:1e9":     {},
		"on-failure:9999999": {},
		"always:3":           {},
		"no:1":               {},
		"Always":             {},
		"always\n":           {},
	} {
		t.Run(text, func(t *testing.T) {
			got, err := Restart(text)
			wantInvalid(t, err, want.Name != "")
			if err == nil && got != want {
				t.Errorf("it is %+v", got)
			}
		})
	}
}

// TestIdle has other actions and another default than a time to live.
func TestIdle(t *testing.T) {
	for text, want := range map[string]string{"15m": "suspend", "15m=stop": "stop", "15m=rm": "", "1ms": "", "none": ""} {
		got, err := Idle(text)
		wantInvalid(t, err, want != "" || text == "none")
		if err == nil && got.Action != want {
			t.Errorf("%s: it is %+v", text, got)
		}
	}
}

func TestParseTTL(t *testing.T) {
	for text, want := range map[string]string{
		"": "0s=", "none": "0s=", "0": "0s=",
		"8h": "28800s=stop", "1s": "1s=stop", "90s=rm": "90s=rm", "1h30m=suspend": "5400s=suspend",
		"8": "", "-1h": "", "0s": "", "999ms": "", "8h=": "", "8h=kill": "", "8h=rm=rm": "", "=rm": "", "none=rm": "",
		"100000h": "", "9999999999h": "", "8h\n": "", "8 h": "",
	} {
		t.Run(text, func(t *testing.T) {
			got, err := TTL(text)
			wantInvalid(t, err, want != "")
			if err == nil && fmt.Sprintf("%ds=%s", got.Seconds, got.Action) != want {
				t.Errorf("it is %v, not %s", got, want)
			}
		})
	}
}
