package e2e

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// clock LIMIT command... checks that the command prints the time as seconds (date +%s.%N), and that
// this time differs by at most LIMIT from the time during which the command runs here.
func cmdClock(ts *testscript.TestScript, neg bool, args []string) {
	refuse(ts, neg, len(args) < 2, "clock LIMIT command...")
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	cmd := exec.Command(args[1], args[2:]...)
	cmd.Env = append(os.Environ(), theWorld(ts).env()...)
	before := time.Now()
	out, err := cmd.Output()
	after := time.Now()
	ts.Check(err)
	seconds, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	ts.Check(err)
	shown := time.UnixMicro(int64(seconds * 1e6))
	ts.Logf("the time is %s after the command began and %s before it ended", shown.Sub(before), after.Sub(shown))
	if before.Sub(shown) > limit || shown.Sub(after) > limit {
		ts.Fatalf("between %s and %s the command says %s", before, after, shown)
	}
}
