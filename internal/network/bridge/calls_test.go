package bridge

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const callsRole = "BANGER_TEST_CALLS"

// TestTheCallsAsText compares what the kernel is asked by netlink for the networks of
// bridge.nft with testdata/bridge.calls: made from nothing, applied again, and removed.
// What is not asked by netlink is not there: taps are made by ioctl(2), settings are
// files of /proc/sys; bridge.links has these.
//
// The requests are those of a process under strace(1), which is asked for bytes only:
// how much it can name differs by its version.
func TestTheCallsAsText(t *testing.T) {
	if os.Getenv(callsRole) != "" {
		makeCalls(t)
		return
	}
	trace := filepath.Join(t.TempDir(), "trace")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "strace", "-f", "-qq", "-o", trace,
		"-e", "trace=socket,close,sendto,sendmsg", "-e", "signal=none",
		"-z", // a call that succeeded is told in one piece, and one that is to be repeated is not told
		"-e", "raw=all", "-e", "write=all", self, "-test.run=^"+t.Name()+"$", "-test.count=1")
	cmd.Env = append(os.Environ(), callsRole+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v (is strace there? scripts/deps installs it)\n%s", err, out)
	}
	raw, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	got := callsAsText(t, string(raw))
	_, again, _ := strings.Cut(got, callsAgain)
	again, _, _ = strings.Cut(again, callsRemoved)
	if writes := regexp.MustCompile(`(?m)^\w+_(NEW|SET|DEL|BATCH).*`).FindAllString(again, -1); writes != nil {
		t.Errorf("what is as it should be is touched:\n%s", strings.Join(writes, "\n"))
	}
	want, err := testdata.ReadFile("testdata/bridge.calls")
	if err != nil {
		t.Fatalf("%v; it should be:\n%s", err, got)
	}
	if got != string(want) {
		same := 0
		for same < min(len(got), len(want)) && got[same] == want[same] {
			same++
		}
		t.Errorf("from line %d on it is not as in the file; the kernel is asked\n%s", 1+strings.Count(got[:same], "\n"), got)
	}
}

const (
	callsFirst   = "# applied from nothing"
	callsAgain   = "# applied again"
	callsRemoved = "# removed"
)

// makeCalls makes the calls that are recorded. Between them it sends marks, and at the end the
// index of each link, on a socket that is not a netlink socket but is traced in the same way.
func makeCalls(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	l := newLab(t)
	say := func(format string, args ...any) {
		l.host.must(unix.Sendto(pair[0], fmt.Appendf(nil, format, args...), 0, nil))
	}
	l.config = twoGuests(t)
	say(callsFirst)
	l.apply()
	say(callsAgain)
	l.apply()
	links, err := l.bridge.linkNames()
	l.host.must(err)
	say(callsRemoved)
	l.host.must(l.bridge.Remove(context.Background()))
	say("# end")
	for index, name := range links {
		say("@%d %s", index, name)
	}
}

// callsAsText returns a line for each request. The expressions of a rule and the elements of a set
// have lines of their own below it. What Bridge keeps in maps, and thus sends in any order, is
// sorted. A question that is repeated at once is there only once: some questions are asked for each
// link, and modules of the kernel may add links to each namespace.
func callsAsText(t *testing.T, trace string) string {
	var out []string
	links, on := map[string]string{}, false
	for _, c := range parseTrace(t, trace) {
		if c.protocol < 0 {
			if index, name, ok := strings.Cut(string(c.data), " "); ok && index[0] == '@' {
				links[index] = name
				continue
			}
			if on = string(c.data) != "# end"; on {
				out = append(out, string(c.data))
			}
			continue
		}
		if on {
			out = append(out, requestsAsText(c.protocol, c.data)...)
		}
	}
	for i := range out {
		out[i] = regexp.MustCompile(`@\d+\b`).ReplaceAllStringFunc(out[i],
			func(index string) string { return cmp.Or(links[index], index) })
	}
	for i := 0; i < len(out); {
		kind, _, _ := strings.Cut(out[i], " ")
		end := i + 1
		for end < len(out) && strings.HasPrefix(out[end], kind+" ") {
			end++
		}
		if slices.Contains([]string{"RTM_GETNEIGH", "RTM_NEWNEIGH", "NFT_MSG_NEWSETELEM"}, kind) {
			slices.Sort(out[i:end])
		}
		i = end
	}
	out = slices.CompactFunc(out, func(a, b string) bool { return a == b && strings.Contains(a, "_GET") })
	return strings.Join(out, "\n") + "\n"
}

// sent is one call of sendto or sendmsg.
type sent struct {
	protocol int // of netlink; -1: another socket
	data     []byte
}

var traced = regexp.MustCompile(`^\d+ +(\w+)\((\w+)(?:, \w+, (\w+))?.*\) += (\w+)$`)

// parseTrace takes lines like
//
//	4711  socket(0x10, 0x80003, 0xc)        = 0x7
//	4711  sendto(0x7, 0xc000123456, 0x14, 0, 0xc000654321, 0xc) = 0x14
//	 | 00000  14 00 00 00 0a 0a 05 00  01 00 00 00 00 00 00 00  ................ |
//	 | 00010  02 00 00 00                                       ....             |
func parseTrace(t *testing.T, trace string) (out []sent) {
	number := func(s string) int {
		n, err := strconv.ParseInt(s, 0, 64)
		if err != nil {
			t.Fatal(err)
		}
		return int(n)
	}
	sockets := map[int]int{} // protocols by descriptor
	for line := range strings.Lines(trace) {
		line = strings.TrimSuffix(line, "\n")
		// It is the next part of a sendmsg, or a thread that ends with the process.
		if strings.HasPrefix(line, " * ") || strings.Contains(line, " ???(") {
			continue
		}
		if dump, ok := strings.CutPrefix(line, " | "); ok && len(out) > 0 {
			_, dump, _ = strings.Cut(dump, "  ")
			data, err := hex.DecodeString(strings.ReplaceAll(dump[:min(len(dump), 16*3+1)], " ", ""))
			if err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			out[len(out)-1].data = append(out[len(out)-1].data, data...)
			continue
		}
		m := traced.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("strace says %q", line)
		}
		switch fd := number(m[2]); {
		case m[1] == "close":
			delete(sockets, fd)
		case m[1] == "socket" && fd == unix.AF_NETLINK:
			sockets[number(m[4])] = number(m[3])
		case m[1] != "socket":
			protocol, ok := sockets[fd]
			if !ok {
				protocol = -1
			}
			out = append(out, sent{protocol: protocol})
		}
	}
	return out
}
