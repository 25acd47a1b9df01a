// Command echo is the program of the tests' root file system. As "state" it says as JSON
// what a guest of a snapshot must not share with others; as "cat" it copies.
package main

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	if filepath.Base(os.Args[0]) == "cat" {
		if _, err := io.Copy(os.Stdout, os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if filepath.Base(os.Args[0]) != "state" {
		fmt.Println(strings.Join(os.Args[1:], " "))
		return
	}
	s := struct {
		Hostname  string
		Time      time.Time
		MachineID string
		Random    []byte
		MACs      []string
		Addresses []string
		Default   bool // there is a default route
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
	json.NewEncoder(os.Stdout).Encode(s)
}
