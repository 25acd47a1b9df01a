package host

import (
	"strings"
	"testing"
)

func TestTheLevelOfACPU(t *testing.T) {
	flags := [5]string{1: "fpu lm sse2"}
	for level := 2; level <= 4; level++ {
		flags[level] = flags[level-1] + " " + strings.Join(levels[level], " ")
	}
	for text, want := range map[string]int{
		"":                                   1,
		"processor : 0\nmodel name : x\n":    1,
		"flags\t\t: " + flags[1]:             1,
		"flags\t\t: " + flags[2]:             2,
		"flags\t\t: " + flags[3]:             3,
		"x : y\nflags\t\t: " + flags[4]:      4,
		"flags : " + flags[4] + "\nflags : ": 4, // the first CPU counts
		"flags : " + strings.ReplaceAll(flags[4], "movbe", ""): 2,
		"flags : " + strings.ReplaceAll(flags[4], "cx16", ""):  1,
		"vmx flags : " + flags[4]:                              1,
	} {
		if got := levelOf(strings.NewReader(text)); got != want {
			t.Errorf("%.60q has level %d, not %d", text, got, want)
		}
	}
	if got := GuestLevel(false); got != EmulatedLevel {
		t.Errorf("emulated guests have level %d", got)
	}
	if got := GuestLevel(true); got < 1 || got > 4 {
		t.Errorf("this host has level %d", got)
	}
}
