package main

import (
	"encoding/json"
	"fmt"
	"os"
)

// defaultVersion is the version that the double plays unless DOUBLE_VERSION names another.
const defaultVersion = "1.16.1"

func playedVersion() string {
	if v := os.Getenv("DOUBLE_VERSION"); v != "" {
		return v
	}
	return defaultVersion
}

// before reports whether the played version is older than major.minor.patch.
func before(major, minor, patch int) bool {
	var is [3]int
	fmt.Sscanf(playedVersion(), "%d.%d.%d", &is[0], &is[1], &is[2])
	for i, n := range []int{major, minor, patch} {
		if is[i] != n {
			return is[i] < n
		}
	}
	return false
}

// since returns a fault if body has one of fields and the played version is older than major.minor.
// The body must be valid JSON.
func since(major, minor int, body []byte, fields ...string) error {
	if !before(major, minor, 0) {
		return nil
	}
	var present map[string]json.RawMessage
	json.Unmarshal(body, &present)
	for _, field := range fields {
		if _, ok := present[field]; ok {
			return badBody("unknown field `%s`", field)
		}
	}
	return nil
}
