package banger

import "testing"

func TestParseSignalReadsWhatDockerReads(t *testing.T) {
	for text, want := range map[string]int{
		"TERM": 15, "SIGTERM": 15, "sigquit": 3, "9": 9, "64": 64, "SIGRTMIN+3": 37, "RTMAX-1": 63, "RTMIN": 34,
		"": 0, "0": 0, "65": 0, "-1": 0, "NOSUCH": 0, "RTMIN+40": 0, "RTMIN+": 0, "TERM+1": 0, "SIG": 0,
	} {
		t.Run(text, func(t *testing.T) {
			got, err := ParseSignal(text)
			wantInvalid(t, err, want != 0)
			if got != want {
				t.Errorf("it is %d, not %d", got, want)
			}
		})
	}
}
