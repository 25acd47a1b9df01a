package host

import (
	"bufio"
	"os"
	"strings"
)

// GetFirecracker says how to install Firecracker on this host, because few distributions have it.
func GetFirecracker() string {
	f, err := os.Open("/etc/os-release")
	if err == nil {
		defer f.Close()
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			switch id, _ := strings.CutPrefix(lines.Text(), "ID="); strings.Trim(id, `"`) {
			case "nixos":
				return "nix profile install nixpkgs#firecracker"
			case "arch":
				return "pacman -S firecracker"
			}
		}
	}
	return "put the program of a release into PATH: https://github.com/firecracker-microvm/firecracker/releases"
}
