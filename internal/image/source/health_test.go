package source

import (
	"reflect"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"banger"
)

func TestHealthChecksAreProbes(t *testing.T) {
	for name, c := range map[string]struct {
		check *v1.HealthConfig
		want  *banger.Probe
	}{
		"no check":     {nil, nil},
		"none":         {&v1.HealthConfig{Test: []string{"NONE"}}, nil},
		"the parent's": {&v1.HealthConfig{Interval: time.Second}, nil},
		"a shell's": {&v1.HealthConfig{Test: []string{"CMD-SHELL", "curl -f http://localhost/"}, Interval: time.Minute,
			Timeout: 3 * time.Second, StartPeriod: 5 * time.Second, Retries: 2},
			&banger.Probe{Check: "cmd:curl -f http://localhost/", Interval: time.Minute, Timeout: 3 * time.Second,
				StartPeriod: 5 * time.Second, Retries: 2}},
		"words": {&v1.HealthConfig{Test: []string{"CMD", "pg_isready", "-q"}},
			&banger.Probe{Args: []string{"pg_isready", "-q"}}},
		"an unknown form":   {&v1.HealthConfig{Test: []string{"RUN", "x"}}, nil},
		"a time below zero": {&v1.HealthConfig{Test: []string{"CMD", "x"}, Interval: -1}, nil},
	} {
		if got := healthOf(c.check); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
