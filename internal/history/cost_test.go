package history

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"banger"
	"banger/internal/shim"
	"banger/internal/vmm"
)

// shims is the argument with which the test's program plays the shims of VMs.
const shims = "shims"

func TestMain(m *testing.M) {
	if len(os.Args) == 4 && os.Args[1] == shims {
		playShims(os.Args[2], os.Args[3])
		return
	}
	os.Exit(m.Run())
}

// playShims answers at n sockets as shims do, until its standard input ends.
func playShims(dir, n string) {
	count, _ := strconv.Atoi(n)
	self, _ := vmm.Self()
	for i := range count {
		run := filepath.Join(dir, strconv.Itoa(i))
		os.Mkdir(run, 0o700)
		ln, err := net.Listen("unix", filepath.Join(run, shim.SocketFile))
		if err != nil {
			panic(err)
		}
		go func() {
			for total := uint64(0); ; total += 12345 {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				bufio.NewReader(conn).ReadString('\n')
				st := shim.Status{VMM: self}
				st.Stats.DiskRead, st.Stats.NetIn = total, total
				json.NewEncoder(conn).Encode(st)
				conn.Close()
			}
		}()
	}
	fmt.Println("ready")
	os.Stdin.Read(make([]byte, 1))
}

// BenchmarkARoundOf500VMs says what a round costs this process: it asks each shim, and reads /proc.
func BenchmarkARoundOf500VMs(b *testing.B) {
	dir, err := os.MkdirTemp("", "h")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	const vms = 500
	cmd := exec.Command("/proc/self/exe", shims, dir, strconv.Itoa(vms))
	stdin, _ := cmd.StdinPipe()
	stdout, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer cmd.Wait()
	defer stdin.Close()
	bufio.NewReader(stdout).ReadString('\n')
	all := []banger.VM{}
	for i := range vms {
		all = append(all, banger.VM{ID: strconv.Itoa(i), State: banger.StateRunning})
	}
	r := New(func() []banger.VM { return all }, func(ctx context.Context, id string) (Sample, error) {
		st, err := shim.Client{Run: filepath.Join(dir, id)}.Stats(ctx)
		if err != nil {
			return Sample{}, err
		}
		use, err := st.VMM.Usage()
		return Sample{banger.Stats{CPUs: 1, CPUTime: use.CPUTime, Memory: use.Memory, NetIn: st.Stats.NetIn},
			fmt.Sprint(st.VMM)}, err
	})
	begun, step := cpu(), int64(1)
	for b.Loop() {
		if silent := r.round(b.Context(), step, nil); len(silent) > 0 {
			b.Fatalf("%d VMs do not answer", len(silent))
		}
		step++
	}
	b.ReportMetric(float64((cpu()-begun).Microseconds())/1000/float64(b.N), "cpu-ms/round")
}

// cpu returns the CPU time of this process.
func cpu() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
