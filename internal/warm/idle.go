package warm

import (
	"context"
	"fmt"
	"os"
	"time"
)

// lookEvery is the time between two looks at the host's CPU.
const lookEvery = time.Second

// awaitIdle returns when half of the host's CPU was idle between two looks.
func awaitIdle(ctx context.Context) error {
	before, err := readCPU()
	for err == nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookEvery):
		}
		var now cpu
		if now, err = readCPU(); err == nil && isIdle(before, now) {
			return nil
		}
		before = now
	}
	return err
}

// cpu is how long the host's CPUs were idle, and all their time, in ticks.
type cpu struct{ idle, all uint64 }

func isIdle(before, now cpu) bool { return 2*(now.idle-before.idle) >= now.all-before.all }

// readCPU reads the first line of /proc/stat (proc_stat(5)).
func readCPU() (c cpu, err error) {
	f, err := os.Open("/proc/stat")
	if err != nil {
		return c, err
	}
	defer f.Close()
	var t [8]uint64 // user, nice, system, idle, iowait, irq, softirq, steal
	_, err = fmt.Fscanf(f, "cpu %d %d %d %d %d %d %d %d", &t[0], &t[1], &t[2], &t[3], &t[4], &t[5], &t[6], &t[7])
	for _, n := range t {
		c.all += n
	}
	c.idle = t[3] + t[4]
	return c, err
}
