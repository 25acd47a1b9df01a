package usage

import (
	"encoding/json"
	"fmt"
	"math"
	"testing"
)

func TestSeriesAreShortAndHaveGaps(t *testing.T) {
	nan := float32(math.NaN())
	for want, s := range map[string]Series{
		"[]":                     nil,
		"[null,0,0.012,1]":       {nan, 0, 0.01234, 1},
		"[999.5,1000,536870912]": {999.5, 1000.4, 512 << 20},
		"[null]":                 {float32(math.Inf(1))},
	} {
		got, err := json.Marshal(s)
		if err != nil || string(got) != want {
			t.Errorf("%v is %s, %v, not %s", s, got, err, want)
		}
		var back Series
		if err := json.Unmarshal(got, &back); err != nil {
			t.Errorf("%s: %v", got, err)
		}
		if again, err := json.Marshal(back); err != nil || string(again) != want {
			t.Errorf("%s is read as %s, %v", want, fmt.Sprint(back), err)
		}
	}
}
