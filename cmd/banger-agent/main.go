// Command banger-agent is /init of the guest's initramfs and what answers the
// host from inside.
package main

import (
	"os"

	"banger/internal/agent"
)

func main() {
	os.Exit(agent.Main(os.Args))
}
