//go:build bench

package bench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"banger/internal/guest"
)

// The bounds of the promises.
const (
	maxBootRatio   = 1.25
	maxExecMillis  = 15
	minStdinRatio  = 0.40
	minStdoutRatio = 0.60
	minCopyRatio   = 0.80
	maxFilesRatio  = 1.30
	maxDaemonMiB   = 40
	maxPerVMMiB    = 2
	maxShimMiB     = 20
	maxVersion     = 50 // ms
)

// boot compares cold boots, each on a new disk.
func (b *bench) boot() {
	rival := b.newBare("none")
	var bare, run, whole, start []float64
	turns := []func(){
		func() {
			_, took, stop := rival.boot()
			stop()
			bare = append(bare, took.Seconds())
		},
		func() {
			first, all := b.runOnce()
			run, whole = append(run, first.Seconds()), append(whole, all.Seconds())
		},
		func() {
			vm := b.newVM()
			start = append(start, timed(func() { b.cli("start", "-q", vm) }).Seconds())
			b.cli("rm", "-f", vm)
		},
	}
	for i := range b.pairs {
		for j := range turns {
			turns[(i+j)%len(turns)]() // the order rotates
		}
		b.Logf("boot %d of %d: bare %.2f s, run %.2f s, start %.2f s", i+1, b.pairs, bare[i], run[i], start[i])
	}
	b.addPairs("cold boot: run, to its output", "s", run, bare, maxBootRatio, false)
	b.addPairs("cold boot: start", "s", start, bare, maxBootRatio, false)
	b.add("run --rm, to its end", "s", whole, 0)
}

// runOnce runs a command in a new VM. It returns when the output came and when the VM was gone.
func (b *bench) runOnce() (first, all time.Duration) {
	cmd := b.command("run", "--rm", "-q", image, "--", "echo", "up")
	out, err := cmd.StdoutPipe()
	b.must(err)
	begin := time.Now()
	b.must(cmd.Start())
	_, err = bufio.NewReader(out).ReadString('\n')
	b.must(err)
	first = time.Since(begin)
	b.must(cmd.Wait())
	return first, time.Since(begin)
}

// exec measures short commands in one VM.
func (b *bench) exec() {
	vm := b.newVM()
	b.cli("start", "-q", vm)
	const warm, count, crowd = 20, 100, 200
	var api, cli []float64
	for range warm + count {
		api = append(api, millis(timed(func() { b.must(b.execTrue(b.Context(), vm)) })))
	}
	b.add("exec by the API", "ms", api[warm:], maxExecMillis)
	for range 20 {
		cli = append(cli, millis(timed(func() { b.cli("exec", vm, "true") })))
	}
	b.add("banger exec VM true", "ms", cli, 0)
	const loops = 40
	script := fmt.Sprintf("i=0; while [ $i -lt %d ]; do /bin/true; i=$((i+1)); done", loops)
	var inside []float64
	for range 3 {
		inside = append(inside, millis(timed(func() { b.cli("exec", vm, "--", "sh", "-c", script) }))/loops)
	}
	b.add("for comparison: /bin/true by a shell in the VM", "ms", inside, 0)

	ctx, cancel := context.WithTimeout(b.Context(), 5*time.Minute)
	defer cancel()
	errs := make(chan error, crowd)
	took := timed(func() {
		var wg sync.WaitGroup
		for range crowd {
			wg.Go(func() {
				if err := b.execTrue(ctx, vm); err != nil {
					errs <- err
				}
			})
		}
		wg.Wait()
	})
	failed := row{
		figure:  "200 execs at once: failures",
		banger:  strconv.Itoa(len(errs)),
		unit:    "of 200",
		bound:   "0",
		verdict: "ok",
	}
	if len(errs) > 0 {
		failed.verdict = "NOT MET"
		b.Errorf("%d of %d execs at once failed; one with: %v", len(errs), crowd, <-errs)
	}
	*b.rows = append(*b.rows, failed)
	b.add("200 execs at once: until the last", "s", []float64{took.Seconds()}, 0)
}

// streams compares the throughput of a command's stdio with that of a raw virtio-serial port of the
// same VM.
func (b *bench) streams() {
	rival := b.newBare("none")
	c, _, stop := rival.boot(
		"-chardev", "socket,id=raw,path="+filepath.Join(rival.dir, "raw.sock")+",server=on,wait=off",
		"-device", "virtserialport,chardev=raw,name=raw")
	defer stop()
	_, err := c.Configure(b.Context(), guest.Config{Hostname: "bare"})
	b.must(err)
	vm := b.newVM()
	b.cli("start", "-q", vm)
	zeros, err := os.Create(filepath.Join(b.scratch, "zeros"))
	b.must(err)
	defer zeros.Close()
	b.must(zeros.Truncate(b.bytes))
	n := strconv.FormatInt(b.bytes, 10)

	port := `/dev/$(grep -lx raw /sys/class/virtio-ports/*/name | cut -d/ -f5)`
	rawIn := func() {
		conn := rival.dial("raw.sock")
		wait := rival.sh(c, "cat "+port+" >/dev/null")
		_, err := io.Copy(conn, rewound(b, zeros))
		b.must(err)
		conn.Close() // the port's end of file
		wait()
	}
	ourIn := func() {
		cmd := b.command("exec", "-i", vm, "--", "sh", "-c", "cat >/dev/null")
		cmd.Stdin = rewound(b, zeros)
		b.must(cmd.Run())
	}
	rawOut := func() {
		conn := rival.dial("raw.sock")
		defer conn.Close()
		wait := rival.sh(c, "head -c "+n+" /dev/zero >"+port)
		got, err := io.CopyN(io.Discard, conn, b.bytes)
		if err != nil {
			b.Fatalf("the raw port ended after %d bytes: %v", got, err)
		}
		wait()
	}
	ourOut := func() {
		cmd := b.command("exec", vm, "--", "head", "-c", n, "/dev/zero")
		out, err := cmd.StdoutPipe()
		b.must(err)
		b.must(cmd.Start())
		got, err := io.Copy(io.Discard, out)
		b.must(err)
		b.must(cmd.Wait())
		if got != b.bytes {
			b.Fatalf("%d of %d bytes came out", got, b.bytes)
		}
	}
	b.duelOn("stdin to the guest", minStdinRatio, ourIn, rawIn)
	b.duelOn("guest to stdout", minStdoutRatio, ourOut, rawOut)
	file := filepath.Join(b.scratch, "random")
	b.must(exec.Command("sh", "-c", "head -c "+n+" /dev/urandom >"+file).Run())
	b.duelOn("cp into the guest", minCopyRatio, func() { b.cli("cp", "-q", file, vm+":/root/random") }, rawIn)
	b.duelOn("cp out of the guest", minCopyRatio, func() {
		b.cli("cp", "-q", vm+":/root/random", filepath.Join(b.scratch, "back"))
	}, rawOut)
}

// files compares a copy of many small files into a guest with the guest's own tar.
func (b *bench) files() {
	const dirs, each = 200, 100
	tree := filepath.Join(b.scratch, "tree")
	for i := range dirs {
		dir := filepath.Join(tree, strconv.Itoa(i))
		b.must(os.MkdirAll(dir, 0o755))
		for j := range each {
			b.must(os.WriteFile(filepath.Join(dir, strconv.Itoa(j)), make([]byte, 100), 0o644))
		}
	}
	vm := b.newVM()
	b.cli("start", "-q", vm)
	copied := func() { b.cli("cp", "-q", "-a", tree, vm+":/root/tree") }
	unpacked := func() {
		tar := exec.Command("tar", "c", "-C", b.scratch, "tree")
		out, err := tar.StdoutPipe()
		b.must(err)
		b.must(tar.Start())
		cmd := b.command("exec", "-i", vm, "--", "tar", "x", "-C", "/root")
		cmd.Stdin = out
		b.must(cmd.Run())
		b.must(tar.Wait())
	}
	var us, them []float64
	turns := []func(){
		func() { us = append(us, timed(copied).Seconds()) },
		func() { them = append(them, timed(unpacked).Seconds()) },
	}
	for i := range b.pairs {
		for j := range turns {
			turns[(i+j)%len(turns)]()
			b.cli("exec", vm, "--", "sh", "-c", "rm -r /root/tree; sync")
		}
		b.Logf("files %d of %d: banger %.1f s, tar %.1f s", i+1, b.pairs, us[i], them[i])
	}
	b.addPairs(fmt.Sprintf("cp of %d small files", dirs*each), "s", us, them, maxFilesRatio, false)
}

// duelOn compares rates for b.bytes bytes, in turns.
func (b *bench) duelOn(figure string, bound float64, ours, rival func()) {
	rate := func(f func()) float64 { return float64(b.bytes) / (1 << 20) / timed(f).Seconds() }
	var us, them []float64
	for i := range b.pairs {
		if i%2 == 0 {
			us, them = append(us, rate(ours)), append(them, rate(rival))
		} else {
			them, us = append(them, rate(rival)), append(us, rate(ours))
		}
		b.Logf("%s %d of %d: banger %.0f MiB/s, rival %.0f MiB/s", figure, i+1, b.pairs, us[i], them[i])
	}
	b.addPairs(figure, "MiB/s", us, them, bound, true)
}

func rewound(b *bench, f *os.File) *os.File {
	_, err := f.Seek(0, io.SeekStart)
	b.must(err)
	return f
}

// memory measures a daemon just after its start, and the processes of idle VMs.
func (b *bench) memory() {
	vms := []string{b.newVM(), b.newVM(), b.newVM()}
	b.cli("daemon", "stop")
	b.cli("ps") // starts it again
	rest := func() { time.Sleep(5 * time.Second) }
	rest()
	v, err := b.client.Version(b.Context())
	b.must(err)
	daemon := strconv.Itoa(v.PID)
	idle := b.rss(daemon)
	var with []float64 // after the start of each VM
	for _, vm := range vms {
		b.cli("start", "-q", vm)
		rest()
		with = append(with, b.rss(daemon))
	}
	b.add("idle daemon", "MiB RSS", []float64{idle}, maxDaemonMiB)
	b.add("daemon: growth by each of 3 VMs", "MiB RSS", []float64{(with[2] - idle) / 3}, maxPerVMMiB)
	b.add("of it by each but the first", "MiB RSS", []float64{(with[2] - with[0]) / 2}, 0)
	largest := 0.0
	for _, vm := range vms {
		largest = max(largest, b.shimRSS(vm))
	}
	b.add("largest of 3 shims", "MiB RSS", []float64{largest}, maxShimMiB)
	var version []float64
	for range 20 {
		version = append(version, millis(timed(func() { b.must(exec.Command(b.binary, "version").Run()) })))
	}
	b.add("banger version", "ms", version, maxVersion)
}

// shimRSS returns the memory of a VM's shim in MiB.
func (b *bench) shimRSS(vm string) float64 {
	b.Helper()
	for _, p := range processes(filepath.Join(b.state, "vms", vm)) {
		if !strings.HasPrefix(filepath.Base(p.argv[0]), "qemu") {
			return b.rss(p.pid)
		}
	}
	b.Fatal("no shim was found")
	return 0
}

func (b *bench) rss(pid string) float64 {
	b.Helper()
	data, err := os.ReadFile("/proc/" + pid + "/status")
	b.must(err)
	_, after, _ := strings.Cut(string(data), "VmRSS:")
	kib, err := strconv.Atoi(strings.Fields(after)[0])
	b.must(err)
	return float64(kib) / 1024
}
