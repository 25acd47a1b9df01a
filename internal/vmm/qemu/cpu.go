package qemu

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"banger/internal/vmm"
)

// The default CPU models of guests (docs/adr/0024).
const (
	// modelTCG is at the level x86-64-v3. The number pins its definition, which is the same in every
	// version of QEMU.
	modelTCG = "EPYC-v1"
	// modelKVM is the host's CPU.
	modelKVM = "host"
)

// cpu returns the value of QEMU's -cpu for c. Hardware virtualisation is hidden unless c.Nested
// asks for it: KVM's code for nested guests runs in the host's kernel, and a guest could attack it.
func cpu(c vmm.Config) string {
	model, hide, offer := modelKVM, ",-vmx,-svm", ""
	if c.Accel == vmm.AccelTCG {
		model, hide, offer = modelTCG, ",-svm", ",+svm" // TCG does not emulate vmx
	}
	if c.CPUModel != "" {
		model = c.CPUModel
	}
	if c.Nested {
		return model + offer
	}
	return model + hide
}

// CheckCPU returns an error if the QEMU at path cannot give a guest the CPU called model under accel.
// Features may follow the model's name, each behind a comma: EPYC-v3,-rdrand. It runs QEMU, which
// takes about 20 ms.
func CheckCPU(ctx context.Context, path, model string, accel vmm.Accel) error {
	name, rest, _ := strings.Cut(model, ",")
	if name == modelKVM && accel != vmm.AccelKVM {
		return errors.New("the CPU model host needs KVM, and VMs are emulated here")
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "-cpu", "help").Output()
	if err != nil {
		return fmt.Errorf("running %s -cpu help: %w", path, err)
	}
	models, features := parseCPUs(string(out))
	if !models[name] {
		return fmt.Errorf("QEMU has no CPU model %q; `%s -cpu help` lists them", name, path)
	}
	for f := range strings.SplitSeq(rest, ",") {
		if f != "" && !features[strings.TrimLeft(f, "+-")] {
			return fmt.Errorf("QEMU has no CPU feature %q; `%s -cpu help` lists them", strings.TrimLeft(f, "+-"), path)
		}
	}
	return nil
}

// parseCPUs parses the output of `qemu-system-x86_64 -cpu help`: one line for each model, then the
// names of features. Before version 9.2, each model's name follows the word x86.
func parseCPUs(text string) (models, features map[string]bool) {
	models, features = map[string]bool{}, map[string]bool{}
	inFeatures := false
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		switch {
		case strings.HasSuffix(strings.TrimSpace(line), ":"):
			inFeatures = strings.HasPrefix(line, "Recognized CPUID flags")
		case inFeatures:
			for _, w := range words {
				features[w] = true
			}
		case len(words) > 1 && words[0] == "x86":
			models[words[1]] = true
		case len(words) > 0:
			models[words[0]] = true
		}
	}
	return models, features
}
