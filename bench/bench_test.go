//go:build bench

// Package bench measures banger's promises about speed and size on real VMs, and prints one table.
// If the promise is a ratio, the rival is a QEMU with the same arguments, started without banger.
// The two are measured in turns, so the noise of a busy host affects both. scripts/bench runs it.
//
// It must not know how banger achieves its figures. It uses the CLI, the API's client and, for the
// rival, the agent's protocol.
package bench

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"banger"
	"banger/internal/api/client"
	"banger/internal/frame"
)

const image = "debian-bookworm"

func TestFigures(t *testing.T) {
	b := newBench(t)
	defer b.print()
	t.Run("boot", func(t *testing.T) { b.in(t).boot() })
	t.Run("warm", func(t *testing.T) { b.in(t).warm() })
	t.Run("suspend", func(t *testing.T) { b.in(t).suspend() })
	t.Run("forks", func(t *testing.T) { b.in(t).forks() })
	t.Run("exec", func(t *testing.T) { b.in(t).exec() })
	t.Run("streams", func(t *testing.T) { b.in(t).streams() })
	t.Run("sessions", func(t *testing.T) { b.in(t).sessions() })
	t.Run("workspaces", func(t *testing.T) { b.in(t).workspaces() })
	t.Run("work", func(t *testing.T) { b.in(t).work() })
	t.Run("files", func(t *testing.T) { b.in(t).files() })
	t.Run("memory", func(t *testing.T) { b.in(t).memory() })
	t.Run("ssh", func(t *testing.T) { b.in(t).ssh() })
	t.Run("names", func(t *testing.T) { b.in(t).names() })
	t.Run("flood", func(t *testing.T) { b.in(t).flood() })
	t.Run("network", func(t *testing.T) { b.in(t).network() })
}

// bench is one run with one state directory.
type bench struct {
	*testing.T
	binary     string
	state, run string
	scratch    string // on the file system of state
	client     *client.Client
	pairs      int
	bytes      int64
	rows       *[]row
}

func newBench(t *testing.T) *bench {
	b := &bench{T: t, state: os.Getenv("BANGER_STATE_DIR"), run: os.Getenv("BANGER_RUN_DIR"), rows: new([]row)}
	if b.state == "" || b.run == "" {
		t.Fatal("BANGER_STATE_DIR and BANGER_RUN_DIR are not set: use scripts/bench")
	}
	b.pairs, b.bytes = fromEnv(t, "PAIRS", 5), int64(fromEnv(t, "MEGABYTES", 200))<<20
	var err error
	if b.binary, err = filepath.Abs("../bin/banger"); err != nil {
		t.Fatal(err)
	}
	if b.scratch, err = os.MkdirTemp(filepath.Dir(b.state), "bare"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(b.scratch) })
	b.client = client.New(filepath.Join(b.run, "api.sock"))
	return b
}

func fromEnv(t *testing.T, name string, preset int) int {
	v := os.Getenv(name)
	if v == "" {
		return preset
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q is no number above 0", name, v)
	}
	return n
}

// in returns b for a part of the test.
func (b *bench) in(t *testing.T) *bench {
	c := *b
	c.T = t
	return &c
}

// must ends the part of the test if err is not nil.
func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bench) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(b.Context(), b.binary, args...)
	cmd.Stderr = os.Stderr
	return cmd
}

// cli runs banger to its end and returns its output.
func (b *bench) cli(args ...string) string {
	b.Helper()
	out, err := b.command(args...).Output()
	if err != nil {
		b.Fatalf("banger %s: %v", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out))
}

// newVM creates a VM that idles after its start.
func (b *bench) newVM() string { return b.newVMOn("user") }

func (b *bench) newVMOn(network string) string {
	b.Helper()
	id := b.cli("create", "-q", "--network", network, image, "--", "sleep", "infinity")
	b.removeAtEnd(id)
	return id
}

// removeAtEnd removes a VM, if it still exists, when the context of the test is done.
func (b *bench) removeAtEnd(id string) {
	b.Cleanup(func() { exec.Command(b.binary, "rm", "-f", id).Run() })
}

// timed returns how long f takes.
func timed(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

// finish reads the frames of a command to its end. It returns an error unless the command succeeds.
func finish(r io.Reader) error {
	frames := frame.NewReader(r)
	for {
		t, p, err := frames.Next()
		if err != nil {
			return err
		}
		switch t {
		case frame.Exit:
			var e banger.Exit
			if err := json.Unmarshal(p, &e); err != nil || e.Status() != 0 {
				return fmt.Errorf("the command ended with %s", p)
			}
			return nil
		case frame.Error:
			return fmt.Errorf("the command failed: %s", p)
		}
	}
}

// execTrue executes one command through the API, as the CLI does.
func (b *bench) execTrue(ctx context.Context, vm string) error {
	conn, err := b.client.Exec(ctx, vm, banger.Exec{Args: []string{"true"}})
	if err != nil {
		return err
	}
	defer conn.Close()
	return finish(conn)
}

// row is one line of the table. Empty fields do not apply.
type row struct{ figure, unit, banger, rival, ratio, bound, verdict string }

// add reports a median and its upper bound. A bound of 0 means that there is no bound.
func (b *bench) add(figure, unit string, values []float64, bound float64) {
	v := median(values)
	b.append(row{figure: figure, unit: unit, banger: number(v)}, v, bound, v <= bound)
}

// addPairs reports a ratio to the rival's values of the same turns. atLeast makes the bound a lower
// one.
func (b *bench) addPairs(figure, unit string, ours, rival []float64, bound float64, atLeast bool) {
	var ratios []float64
	for i := range ours {
		ratios = append(ratios, ours[i]/rival[i])
	}
	r := median(ratios)
	b.append(row{
		figure: figure, unit: unit, banger: number(median(ours)), rival: number(median(rival)),
		ratio: fmt.Sprintf("%.2f (%.2f-%.2f)", r, slices.Min(ratios), slices.Max(ratios)),
	}, r, bound, r <= bound && !atLeast || r >= bound && atLeast)
}

func (b *bench) append(r row, v, bound float64, ok bool) {
	if bound != 0 {
		r.bound, r.verdict = number(bound), "ok"
		if !ok {
			r.verdict = "NOT MET"
			b.Errorf("%s is %.2f, the bound %s", r.figure, v, r.bound)
		}
	}
	*b.rows = append(*b.rows, r)
}

func (b *bench) print() {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nFIGURE\tUNIT\tBANGER\tRIVAL\tRATIO\tBOUND\t")
	for _, r := range *b.rows {
		fmt.Fprintln(w,
			strings.Join([]string{r.figure, r.unit, r.banger, cmp.Or(r.rival, "-"), cmp.Or(r.ratio, "-"), cmp.Or(r.bound, "-"),
				r.verdict}, "\t"))
	}
	w.Flush()
}

func number(v float64) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return strings.TrimSuffix(fmt.Sprintf("%.2f", v), ".00")
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}

// spread shows the smallest and the largest of some values.
func spread(v []float64) string { return fmt.Sprintf("(%.1f-%.1f)", slices.Min(v), slices.Max(v)) }

func millis(d time.Duration) float64 { return float64(d) / 1e6 }
