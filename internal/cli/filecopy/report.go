package filecopy

import (
	"fmt"
	"strings"

	"banger"
)

// join adds to r the report o that the other end of the same copy has made.
func join(r *banger.CopyReport, o banger.CopyReport) {
	r.Entries, r.Bytes = max(r.Entries, o.Entries), max(r.Bytes, o.Bytes)
	r.Sockets += o.Sockets
	r.Changed += o.Changed
	r.Owners += o.Owners
	r.Modes += o.Modes
	r.Times += o.Times
	r.Attributes += o.Attributes
	r.Rights += o.Rights
}

// Lost describes in words what a copy has not kept. It returns "" if everything was kept.
func Lost(r banger.CopyReport) string {
	var parts []string
	for _, l := range []struct {
		n          int64
		one, other string
	}{
		{r.Sockets, "socket was left out", "sockets were left out"},
		{r.Changed, "file shrank while it was read and is filled with zeros",
			"files shrank while they were read and are filled with zeros"},
		{r.Owners, "owner was not kept", "owners were not kept"},
		{r.Modes, "mode was not kept whole", "modes were not kept whole"},
		{r.Times, "time was not kept", "times were not kept"},
		{r.Attributes, "extended attribute was not kept", "extended attributes were not kept"},
		{r.Rights, "file lost its setuid or setgid bit or capabilities; -a keeps them",
			"files lost their setuid or setgid bit or capabilities; -a keeps them"},
	} {
		switch {
		case l.n == 1:
			parts = append(parts, "1 "+l.one)
		case l.n > 1:
			parts = append(parts, fmt.Sprintf("%d %s", l.n, l.other))
		}
	}
	return strings.Join(parts, ", ")
}
