package client_test

import (
	"testing"

	"banger"
	"banger/internal/testing/hosttest"
)

// TestSecretsOfAVM are named and never told.
func TestSecretsOfAVM(t *testing.T) {
	t.Parallel()
	w, ctx := newWorld(t), t.Context()
	spec := w.spec("box")
	spec.SecretEnv = []string{"A"}
	vm := ok[banger.VM](t)(w.Create(ctx, spec, map[string][]byte{"A": {1, 255}}, false, banger.Discard))
	if len(vm.Secrets) != 1 || vm.Spec.SecretEnv[0] != "A" {
		t.Errorf("the VM is %+v", vm)
	}
	hosttest.Check(t, w.SetSecret(ctx, "box", "B", []byte("value")))
	hosttest.Check(t, w.RemoveSecret(ctx, "box", "A"))
	if list := ok[[]banger.VMSecret](t)(w.Secrets(ctx, "box")); len(list) != 1 || list[0].Name != "B" ||
		list[0].Given.IsZero() {
		t.Errorf("there are %+v", list)
	}
	for name, c := range map[string]struct {
		err  error
		code banger.Code
	}{
		"no such VM":      {w.SetSecret(ctx, "none", "A", nil), banger.CodeNotFound},
		"no such secret":  {w.RemoveSecret(ctx, "box", "A"), banger.CodeNotFound},
		"a long one":      {w.SetSecret(ctx, "box", "A", make([]byte, 64<<10+1)), banger.CodeInvalid},
		"a very long one": {w.SetSecret(ctx, "box", "A", make([]byte, 2<<20)), banger.CodeInvalid},
	} {
		if banger.CodeOf(c.err) != c.code {
			t.Errorf("%s: %v", name, c.err)
		}
	}
}
