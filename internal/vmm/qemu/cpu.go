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

// The CPU models that a guest sees when nobody asks for another (docs/adr/0024).
const (
	// modelTCG is x86-64-v3, and the number pins its definition: it is the same in every version of QEMU.
	modelTCG = "EPYC-v1"
	// modelKVM is the host's CPU.
	modelKVM = "host"
)

// cpu returns the value of QEMU's -cpu for c. Hardware virtualisation is hidden unless c.Nested asks for it: what a
// guest can reach of KVM's nested code is code of the host's kernel.
func cpu(c vmm.Config) string {
	model, hide, offer := modelKVM, ",-vmx,-svm", ""
	if c.Accel == vmm.AccelTCG {
		model, hide, offer = modelTCG, ",-svm", ",+svm" // TCG emulates no vmx
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

// parseCPUs reads what `qemu-system-x86_64 -cpu help` prints: a line for each model, whose name follows the word x86
// before version 9.2, and then the names of features.
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
