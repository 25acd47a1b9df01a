package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// pair is one figure: one way and its rival on one input, and the promised ratio.
type pair struct {
	input, way, rival string
	bound             float64
}

var pairs = []pair{
	{"dev-gzip", "ours", "tar2ext4", 0.45}, {"dev-gzip", "ours", "seed", 0.12}, {"dev-gzip", "ours", "umoci", 0.2},
	{"dev-gzip", "ours", "podman", 0.2},
	{"dev-gzip", "ours", "inflate", 1.3}, {"dev-gzip", "registry", "ours", 1.1},
	{"many-gzip", "ours", "tar2ext4", 0.35}, {"many-gzip", "ours", "seed", 0.05},
	{"dev-zstd", "ours", "tar2ext4", 0.45}, {"dev-zstd", "ours", "seed", 0.12}, // umoci reads no zstd
	{"small-gzip", "ours", "", 0},
	// The same number of files with 1, 4 and 16 times the content: memory must not grow.
	{"content1-gzip", "ours", "", 0}, {"content4-gzip", "ours", "", 0}, {"content16-gzip", "ours", "", 0},
}

// figures runs each pair in alternation, PAIRS times, and prints the median of the
// ratios, with the medians of the times and of our peak memory.
func figures(dir string) error {
	n := 5
	if s := os.Getenv("PAIRS"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			return err
		}
	}
	only, err := regexp.Compile(os.Getenv("ONLY"))
	if err != nil {
		return err
	}
	for _, p := range pairs {
		name := p.name()
		if !only.MatchString(name) {
			continue
		}
		if need := ways[p.rival].needs; need != "" {
			if _, err := exec.LookPath(need); err != nil {
				fmt.Printf("%-20s not measured: %s is not installed\n", name, need)
				continue
			}
		}
		if err := p.measure(dir, n); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func (p pair) name() string { return strings.TrimSpace(p.input + " " + p.way + " " + p.rival) }

func (p pair) measure(dir string, n int) error {
	var ratios, mine, theirs, memory []float64
	if p.way == "registry" {
		stop, err := serve(dir, filepath.Join(dir, p.input))
		if err != nil {
			return err
		}
		defer stop()
	}
	for range n {
		a, rss, err := once(p.way, filepath.Join(dir, p.input), dir)
		if err != nil {
			return err
		}
		mine, memory = append(mine, a), append(memory, rss)
		if p.rival == "" {
			continue
		}
		b, _, err := once(p.rival, filepath.Join(dir, p.input), dir)
		if err != nil {
			return err
		}
		theirs, ratios = append(theirs, b), append(ratios, a/b)
	}
	fmt.Printf("%-28s %.3f s, peak %.0f MiB", p.name(), median(mine), median(memory))
	if p.rival != "" {
		fmt.Printf("; %s %.3f s; ratio %.3f (%.3f-%.3f), promised %.2f", p.rival, median(theirs), median(ratios),
			slices.Min(ratios), slices.Max(ratios), p.bound)
	}
	fmt.Println()
	return nil
}

// once converts in a new process. It returns the seconds and the peak memory in MiB.
func once(way, layout, dir string) (seconds, rss float64, err error) {
	tmp, err := os.MkdirTemp(dir, "out-")
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(tmp)
	syscall.Sync() // writes of earlier work must not count here
	cmd := exec.Command("/proc/self/exe", way, layout, tmp)
	cmd.Stderr = os.Stderr
	start := time.Now()
	err = cmd.Run()
	seconds = time.Since(start).Seconds()
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		rss = float64(usage.Maxrss) / 1024
	}
	return seconds, rss, err
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}
