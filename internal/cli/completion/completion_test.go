package completion

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"banger/internal/image/source"
)

// TestEachWordOfATable checks that no recipe is missing or made up, and that no entry of a table contradicts another.
func TestEachWordOfATable(t *testing.T) {
	for _, name := range recipes {
		if !source.IsRecipe(name) {
			t.Errorf("%s is no recipe", name)
		}
	}
	for name, why := range free {
		if flagValues[name] != nil || why == "" {
			t.Errorf("--%s is free, because %q, and has values all the same", name, why)
		}
	}
}

// TestArguments checks which arguments a command's use names.
func TestArguments(t *testing.T) {
	for use, want := range map[string]string{
		"ps":                                  "",
		"start VM...":                         "VM...",
		"run [flags] IMAGE [--] [COMMAND...]": "IMAGE [COMMAND...]",
		"cp [flags] SRC VM:DST | VM:SRC DST":  "SRC VM:DST",
		"save [-o FILE] IMAGE...":             "IMAGE...",
		"register NAME --rootfs FILE":         "NAME",
		"import (--host | --vmlinux FILE)":    "",
		"set VM allow|deny|FILE|-":            "VM allow|deny|FILE|-",
	} {
		if got := strings.Join(arguments(&cobra.Command{Use: use}), " "); got != want {
			t.Errorf("%q has the arguments %q", use, got)
		}
	}
}

// TestUndecided checks that an argument and a flag that no table has are found.
func TestUndecided(t *testing.T) {
	c := &cobra.Command{Use: "sing VM SONG"}
	c.Flags().String("pitch", "", "")
	c.Flags().Bool("loud", false, "")
	c.Flags().String("format", "", "")
	root := &cobra.Command{Use: "banger"}
	root.AddCommand(c)
	if got := Undecided(root); !slices.Equal(got, []string{"banger sing --pitch", "banger sing SONG"}) {
		t.Errorf("undecided are %q", got)
	}
}
