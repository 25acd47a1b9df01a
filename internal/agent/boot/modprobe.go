package boot

import (
	"bufio"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"banger/internal/agent/console"
)

// modprobePath is where the kernel finds the agent in any image, even in one without a file.
const modprobePath = "/proc/1/exe"

// serveModprobe makes the agent what the kernel runs to load a module that somebody needs
// (Linux, Documentation/admin-guide/sysctl/kernel.rst, modprobe), because many images have
// no such program. An image whose own init runs has one.
func serveModprobe() {
	if err := os.WriteFile("/proc/sys/kernel/modprobe", []byte(modprobePath), 0); err != nil {
		console.Warn(fmt.Errorf("serving the kernel's requests for modules: %w", err))
	}
}

// IsModprobe reports whether the kernel has started this process in order to load a module.
func IsModprobe(args []string) bool {
	return len(args) == 4 && args[0] == modprobePath && args[1] == "-q" && args[2] == "--"
}

// Modprobe loads the module that the kernel calls name, a module or an alias of some. The
// kernel asks for modules that do not exist, too, which is no error.
func Modprobe(name string) error {
	dir := filepath.Join("/lib/modules", KernelRelease())
	modules, err := aliased(filepath.Join(dir, "modules.alias"), name)
	if err != nil {
		return err
	}
	if len(modules) == 0 {
		modules = []string{moduleName(name)}
	}
	for _, m := range modules {
		if e := loadModule(dir, m); e != nil && err == nil {
			err = e
		}
	}
	return err
}

// aliased returns the modules for which name is an alias. file is modules.alias, which
// depmod writes: lines of the word alias, a pattern and a module.
func aliased(file, name string) (modules []string, err error) {
	f, err := os.Open(file)
	if err != nil {
		if os.IsNotExist(err) {
			err = nil
		}
		return nil, err
	}
	defer f.Close()
	name = strings.ReplaceAll(name, "-", "_")
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		word := strings.Fields(lines.Text())
		if len(word) != 3 || word[0] != "alias" {
			continue
		}
		if ok, err := path.Match(strings.ReplaceAll(word[1], "-", "_"), name); ok && err == nil {
			modules = append(modules, word[2])
		}
	}
	return modules, lines.Err()
}
