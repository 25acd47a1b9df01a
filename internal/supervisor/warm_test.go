package supervisor_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"banger"
	"banger/internal/supervisor"
	"banger/internal/testing/vmmtest"
)

// templates waits until there are n templates, and returns them.
func (h *host) templates(s *supervisor.Supervisor, n int) (list []banger.Template) {
	h.T.Helper()
	h.await("the templates are made", func() bool {
		var err error
		list, err = s.Templates().List()
		return err == nil && len(list) == n
	})
	return list
}

// TestVMsStartFromTemplates: the first VM of a shape boots, and the next ones start from a template. A VM whose disk
// was used starts from another one.
func TestVMsStartFromTemplates(t *testing.T) {
	h := newHost(t)
	h.Templates()
	s := h.daemon()
	if vm := h.run(s, h.command("one", forever)); vm.Template != "" || vm.Fresh {
		t.Errorf("the first VM has started from %q; fresh: %v", vm.Template, vm.Fresh)
	}
	made := h.templates(s, 1)[0]
	vm := h.run(s, h.command("two", forever))
	if vm.Template != made.ID {
		t.Errorf("the second VM has started from %q, not %s", vm.Template, made.ID)
	}
	if out, code := h.sh(s, "two", "echo it works"); out != "it works\n" || code != 0 {
		t.Errorf("a command says %q, %d", out, code)
	}
	check(t, errOf(s.Restart(h.ctx(), "two", 0, banger.Discard)))
	if vm, _ := s.Get("two"); vm.Template != "" {
		t.Errorf("with its used disk it has started from %q", vm.Template)
	}
	h.templates(s, 2)
	check(t, errOf(s.Restart(h.ctx(), "two", 0, banger.Discard)))
	if vm, _ := s.Get("two"); vm.Template == "" || vm.Template == made.ID {
		t.Errorf("restarted, it has started from %q", vm.Template)
	}
	if entries, err := os.ReadDir(h.path("state/templates/making/vms")); err != nil || len(entries) > 0 {
		t.Errorf("the making of templates has left %v, %v", entries, err)
	}
}

// TestATemplateThatDoesNotFitIsDropped, and the VM boots.
func TestATemplateThatDoesNotFitIsDropped(t *testing.T) {
	for name, spoil := range map[string]func(dir string) error{
		"its manifest is of another VM": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "snapshot.json"), []byte(`{"format":1}`), 0o600)
		},
		"its manifest is broken": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "snapshot.json"), []byte(`{`), 0o600)
		},
		"its state is gone":   func(dir string) error { return os.Remove(filepath.Join(dir, "snapshot.state")) },
		"its state is broken": func(dir string) error { return os.Truncate(filepath.Join(dir, "snapshot.state"), 1) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.Templates()
			s := h.daemon()
			h.run(s, h.command("one", forever))
			made := h.templates(s, 1)[0]
			dir := filepath.Join(h.path("state/templates/ready"), made.ID)
			files, err := filepath.Glob(dir + "/snapshot.*")
			check(t, err)
			for _, f := range files {
				check(t, os.Chmod(f, 0o600))
			}
			check(t, spoil(dir))
			if vm := h.run(s, h.command("two", forever)); vm.Template != "" {
				t.Errorf("it has started from %s", vm.Template)
			}
			if out, code := h.sh(s, "two", "echo it works"); out != "it works\n" || code != 0 {
				t.Errorf("a command says %q, %d", out, code)
			}
			again := h.templates(s, 1)[0]
			if !again.CreatedAt.After(made.CreatedAt) {
				t.Error("the template is there still")
			}
		})
	}
}

// TestWhatWarmSays: never boots and makes none, only fails without a template and leaves nothing.
func TestWhatWarmSays(t *testing.T) {
	h := newHost(t)
	h.Templates()
	s := h.daemon()
	spec := h.command("only", forever)
	spec.Warm = banger.WarmOnly
	_, err := s.Create(h.ctx(), spec, nil, true, banger.Discard)
	if banger.CodeOf(err) != banger.CodeUnavailable || !strings.Contains(err.Error(),
		"there is no template for VM only: no VM of its shape has started before") {
		t.Errorf("without a template the error is %v", err)
	}
	h.run(s, h.command("one", forever))
	h.templates(s, 1)
	if vm := h.run(s, spec); vm.Template == "" {
		t.Error("it has not started from the template")
	}
	spec = h.command("never", forever)
	spec.Warm = banger.WarmNever
	if vm := h.run(s, spec); vm.Template != "" {
		t.Errorf("it has started from %s", vm.Template)
	}
}

// TestNoTemplateCanBeMade, and VMs boot.
func TestNoTemplateCanBeMade(t *testing.T) {
	h := newHost(t)
	h.Templates()
	s := h.daemon()
	h.run(s, h.command("one", forever))
	h.templates(s, 1)
	_, err := s.Templates().Prune(true, false)
	check(t, err)
	h.Fault(vmmtest.NoFault, vmmtest.FailToStart)
	h.run(s, h.command("two", forever))
	h.await("the making has failed", func() bool {
		entries, err := os.ReadDir(h.path("faults"))
		return err == nil && len(entries) == 0
	})
	if vm := h.run(s, h.command("three", forever)); vm.Template != "" {
		t.Errorf("it has started from %s", vm.Template)
	}
}

// TestADaemonRemovesHalfATemplate that a daemon before it was making.
func TestADaemonRemovesHalfATemplate(t *testing.T) {
	h := newHost(t)
	h.Templates()
	s := h.daemon()
	h.run(s, h.command("one", forever))
	made := h.templates(s, 1)[0]
	s.Close()
	half := filepath.Join(h.path("state/templates/making/vms"), banger.NewID())
	check(t, os.Mkdir(half, 0o700))
	ready := filepath.Join(h.path("state/templates/ready"), "0123456789ab")
	check(t, os.Mkdir(ready, 0o700))
	check(t, os.WriteFile(filepath.Join(ready, "snapshot.memory"), nil, 0o600))
	s = h.daemon()
	for _, dir := range []string{half, ready} {
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s is there", dir)
		}
	}
	if list := h.templates(s, 1); list[0].ID != made.ID {
		t.Errorf("the templates are %v", list)
	}
}
