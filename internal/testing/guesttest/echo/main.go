// Command echo is the program in the tests' root file system. As "state" it prints as JSON what a
// guest of a snapshot must not share with others. As "cat" it copies stdin to stdout. As "fill" it
// writes a number of MiB to a file and syncs the file. As "kill" it sends a signal, given by its
// number, to PID 1. As "witness" it watches the clocks, a connection and a file in memory, and as "testify" it prints what
// the witness has seen. As "init" it is PID 1 and a witness. As "dial" it connects to an address until that is reset.
// As "disk" it waits for a disk of a number of sectors, and copies it to stdout.
package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	var err error
	switch filepath.Base(os.Args[0]) {
	case "cat":
		_, err = io.Copy(os.Stdout, os.Stdin)
	case "fill":
		err = fill(os.Args[1], os.Args[2])
	case "kill":
		err = kill(os.Args[1])
	case "init":
		err = ownInit()
	case "witness":
		err = witness()
	case "testify":
		err = testify()
	case "dial":
		err = dial(os.Args[1])
	case "disk":
		err = disk(os.Args[1])
	case "state":
		err = state()
	default:
		fmt.Println(strings.Join(os.Args[1:], " "))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func fill(path, mib string) error {
	n, err := strconv.Atoi(mib)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	part := bytes.Repeat([]byte("x"), 1<<20)
	for range n {
		if _, err := f.Write(part); err != nil {
			return err
		}
	}
	return f.Sync()
}

func kill(signal string) error {
	n, err := strconv.Atoi(signal)
	if err != nil {
		return err
	}
	return syscall.Kill(1, syscall.Signal(n))
}

func disk(sectors string) error {
	for range 3000 {
		sizes, err := filepath.Glob("/sys/block/*/size")
		if err != nil {
			return err
		}
		for _, path := range sizes {
			size, err := os.ReadFile(path)
			if err != nil || strings.TrimSpace(string(size)) != sectors {
				continue
			}
			f, err := os.Open("/dev/" + filepath.Base(filepath.Dir(path)))
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = io.Copy(os.Stdout, f)
			return err
		}
		time.Sleep(10 * time.Millisecond) // the kernel's messages about disks are not for every program
	}
	return fmt.Errorf("there is no disk of %s sectors", sectors)
}

func state() error {
	s := struct {
		Hostname  string
		Time      time.Time
		MachineID string
		Random    []byte
		MACs      []string
		Addresses []string
		Default   bool // there is a default route
		Cmdline   string
	}{Time: time.Now(), Random: make([]byte, 16)}
	s.Hostname, _ = os.Hostname()
	id, _ := os.ReadFile("/etc/machine-id")
	s.MachineID = strings.TrimSpace(string(id))
	rand.Read(s.Random)
	links, _ := net.Interfaces()
	for _, l := range links {
		if l.Flags&net.FlagLoopback != 0 {
			continue
		}
		s.MACs = append(s.MACs, l.HardwareAddr.String())
		addresses, _ := l.Addrs()
		for _, a := range addresses {
			s.Addresses = append(s.Addresses, a.String())
		}
	}
	routes, _ := os.ReadFile("/proc/net/route")
	s.Default = strings.Contains(string(routes), "\t00000000\t")
	cmdline, _ := os.ReadFile("/proc/cmdline")
	s.Cmdline = strings.TrimSpace(string(cmdline))
	return json.NewEncoder(os.Stdout).Encode(s)
}
