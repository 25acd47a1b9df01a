//go:build race

package image

// underRace is true where all work takes many times as long.
const underRace = true
