package notation

import (
	"fmt"
	"strings"
	"testing"

	"banger"
)

// TestRangesOfPortsAreForwards compares with what docker's -p does.
func TestRangesOfPortsAreForwards(t *testing.T) {
	for text, want := range map[string]string{ // "" means an error
		"80":                             "127.0.0.1:0:80/tcp",
		"8080:80":                        "127.0.0.1:8080:80/tcp",
		"8000-8001:80-81":                "127.0.0.1:8000:80/tcp 127.0.0.1:8001:81/tcp",
		"0.0.0.0:8000-8001:80-81/udp":    "0.0.0.0:8000:80/udp 0.0.0.0:8001:81/udp",
		"80-81":                          "127.0.0.1:0:80/tcp 127.0.0.1:0:81/tcp",
		"0:80-81":                        "127.0.0.1:0:80/tcp 127.0.0.1:0:81/tcp",
		"127.0.0.2::80-81":               "127.0.0.2:0:80/tcp 127.0.0.2:0:81/tcp",
		"80-80":                          "127.0.0.1:0:80/tcp",
		"8000-8002:80-81":                "",
		"8000-8001:80":                   "",
		"8000:80-81":                     "",
		"81-80":                          "",
		"80-":                            "",
		"-80":                            "",
		"80-81-82":                       "",
		"1-65535":                        "",
		"x-y":                            "",
		"8000-8001:80-81/sctp":           "",
		"example.com:8000-8001:80-81":    "",
		"1:2:3-4:5":                      "",
		"[::1]:8000-8001:80-81":          "[::1]:8000:80/tcp [::1]:8001:81/tcp",
		"[::1]:8080:80":                  "[::1]:8080:80/tcp",
		"[::1]:80":                       "[::1]:0:80/tcp",
		"[::1]::80/udp":                  "[::1]:0:80/udp",
		"[::]:8080:80":                   "[::]:8080:80/tcp",
		"[::1]::80-81":                   "[::1]:0:80/tcp [::1]:0:81/tcp",
		"::1:8080:80":                    "",
		"[::1]8080:80":                   "",
		"[::1]:1:2:3":                    "",
		"[]:8080:80":                     "",
		"[fe80::1%lo]:8080:80":           "",
		strings.Repeat("1", 1000) + "-2": "",
	} {
		list, err := ParseForwards(text)
		var got []string
		for _, f := range list {
			got = append(got, f.String())
		}
		switch {
		case want == "" && banger.CodeOf(err) != banger.CodeInvalid:
			t.Errorf("%.40q: %v, %v", text, got, err)
		case want != "" && (err != nil || strings.Join(got, " ") != want):
			t.Errorf("%q is %v, %v, not %s", text, got, err, want)
		}
	}
	text := fmt.Sprint(banger.Forward{HostIP: "nonsense", Protocol: "tcp"}.Check())
	if strings.Contains(text, "AddrPort") {
		t.Errorf("an error has words of Go: %s", text)
	}
}
