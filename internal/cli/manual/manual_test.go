package manual

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"banger"
)

// sing is a command with all that a page may have.
func sing() *cobra.Command {
	root := &cobra.Command{Use: "banger", Short: "Run things"}
	root.PersistentFlags().BoolP("quiet", "q", false, "say nothing")
	c := &cobra.Command{
		Use:     "sing [flags] SONG",
		Short:   "Sing a song",
		Long:    "Sing.\n\nSongs:\n  .one\n\n  two\n.three\nend",
		Example: "  banger sing 'a\\n' -- `b`\n  banger sing ~",
		RunE:    func(*cobra.Command, []string) error { return nil },
	}
	c.Flags().StringP("pitch", "p", "a1", "the `TONE` to begin with")
	c.Flags().StringArray("voice", nil, "who sings")
	c.Flags().String("loud", "no", "how loud")
	c.Flags().Lookup("loud").NoOptDefVal = "yes"
	c.Flags().Int("secret", 0, "not for all")
	c.Flags().MarkHidden("secret")
	root.AddCommand(c, &cobra.Command{Use: "shim", Hidden: true})
	return root
}

// TestAPage compares a page with what it must be. What looks like a command of roff is text.
func TestAPage(t *testing.T) {
	const want = `.TH "BANGER\-SING" 1 "2026-01-02" "banger VERSION"
.SH NAME
banger\-sing \- Sing a song
.SH SYNOPSIS
.B banger sing [flags] SONG
.SH DESCRIPTION
Sing.
.PP
Songs:
.RS
.nf
\&.one

two
.fi
.RE
.PP
\&.three
end
.SH OPTIONS
.TP
\fB\-h\fR, \fB\-\-help\fR
help for sing
.TP
\fB\-\-loud\fR[=\fIVALUE\fR]
how loud (default: no)
.TP
\fB\-p\fR, \fB\-\-pitch\fR \fITONE\fR
the TONE to begin with (default: a1)
.TP
\fB\-\-voice\fR \fIVALUE\fR
who sings
.SH OPTIONS OF ALL COMMANDS
.TP
\fB\-q\fR, \fB\-\-quiet\fR
say nothing
.SH EXAMPLES
.RS
.nf
banger sing \(aqa\en\(aq \-\- \(gab\(ga
banger sing \(ti
.fi
.RE
.SH SEE ALSO
.BR banger (1)
`
	c, _, err := sing().Find([]string{"sing"})
	if err != nil {
		t.Fatal(err)
	}
	got := Page(c, time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC))
	if got != strings.Replace(want, "VERSION", escaped(banger.Version), 1) {
		t.Errorf("the page is\n%s", got)
	}
}

// TestWhichPagesAreWritten checks that hidden commands have none, and that an error is a sentence.
func TestWhichPagesAreWritten(t *testing.T) {
	dir := t.TempDir()
	if err := Write(dir, sing()); err != nil {
		t.Fatal(err)
	}
	list, _ := os.ReadDir(dir)
	if len(list) != 2 || list[0].Name() != "banger-sing.1" || list[1].Name() != "banger.1" {
		t.Errorf("the pages are %v", list)
	}
	err := Write(filepath.Join(dir, "none"), sing())
	want := "cannot write the page " + dir + "/none/banger.1: no such file or directory"
	if banger.CodeOf(err) != banger.CodeInvalid || err.Error() != want {
		t.Errorf("the error is %v", err)
	}
}
