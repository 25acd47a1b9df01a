package proxy_test

import (
	"slices"
	"strings"
	"testing"

	"banger"
	"banger/internal/proxy"
)

// TestEnvironHasTheProxiesOfTheAccess checks that a program gets these alone, in both cases of letters.
func TestEnvironHasTheProxiesOfTheAccess(t *testing.T) {
	own := []string{"PATH=/bin", "http_proxy=own", "HTTPS_PROXY=own", "All_Proxy=own", "NO_PROXY=own", "PROXY=kept"}
	a := banger.RegistryAccess{HTTPProxy: "theirs", NoProxy: "local"}
	got := proxy.Environ(a, own)
	slices.Sort(got)
	want := strings.Fields("HTTP_PROXY=theirs NO_PROXY=local PATH=/bin PROXY=kept http_proxy=theirs no_proxy=local")
	if !slices.Equal(got, want) {
		t.Errorf("it is %q", got)
	}
	if own[1] != "http_proxy=own" {
		t.Errorf("the environment that it was given is now %q", own)
	}
}
