package command

import (
	"testing"

	"github.com/spf13/cobra"
)

func TestTheNearestCommandIsSuggested(t *testing.T) {
	root := &cobra.Command{Use: "banger"}
	for _, name := range []string{"run", "dns", "df", "ls", "ps", "rm", "start", "stop", "restart", "image"} {
		root.AddCommand(&cobra.Command{Use: name, Run: func(*cobra.Command, []string) {}})
	}
	root.AddCommand(&cobra.Command{Use: "secret", Hidden: true, Run: func(*cobra.Command, []string) {}})
	for word, want := range map[string]string{
		"rnu": "run", "sl": "ls", "strat": "start", "imgae": "image", "images": "image", "RUN": "run", "im": "image",
		"sto": "stop", "restrt": "restart", "secre": "", "nonsense": "", "": "", "xy": "", "lsx": "ls",
	} {
		if got := nearest(root, word); got != want {
			t.Errorf("for %q it suggests %q, not %q", word, got, want)
		}
	}
}
