//go:build race

package convert

// underRace is true if the race detector makes all work take many times as long.
const underRace = true
