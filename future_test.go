package banger

import "testing"

// TestWhatExcludesItself checks fields that do not fit each other.
func TestWhatExcludesItself(t *testing.T) {
	suspend := Timer{60, ActionSuspend}
	for name, c := range map[string]struct {
		spec Spec
		ok   bool
	}{
		"removed and restarted":          {Spec{AutoRemove: true, Restart: RestartPolicy{Name: RestartAlways}}, false},
		"removed and not restarted":      {Spec{AutoRemove: true, Restart: RestartPolicy{Name: RestartNo}}, true},
		"nested and suspended":           {Spec{Nested: NestedOn, TTL: suspend}, false},
		"nested and suspended when idle": {Spec{Nested: NestedOn, Idle: suspend}, false},
		"removed when idle":              {Spec{Idle: Timer{60, ActionRemove}}, false},
		"nested and stopped":             {Spec{Nested: NestedOn, TTL: Timer{60, ActionStop}}, true},
		"a ttl without an action":        {Spec{TTL: Timer{Seconds: 60}}, false},
		"an action without a time":       {Spec{TTL: Timer{Action: ActionStop}}, false},
		"a negative time":                {Spec{TTL: Timer{-1, ActionStop}}, false},
		"no policy with a number":        {Spec{Restart: RestartPolicy{Max: 3}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c.spec.Image = "debian"
			wantInvalid(t, c.spec.Normalize(), c.ok)
		})
	}
}
