package command

import (
	"strings"

	"github.com/spf13/cobra"
)

// maxMistakes is how many mistakes a word may have for another one to be suggested.
const maxMistakes = 2

// nearest returns the command of c that a user most probably meant by word, or "".
func nearest(c *cobra.Command, word string) (name string) {
	if word == "" {
		return ""
	}
	best := maxMistakes + 1
	for _, sub := range c.Commands() {
		if !sub.IsAvailableCommand() {
			continue
		}
		for _, known := range append([]string{sub.Name()}, sub.Aliases...) {
			n := mistakes(strings.ToLower(word), known)
			if strings.HasPrefix(known, word) {
				n = min(n, 1)
			}
			if n < best && n < len(known) { // a short word with all its letters wrong is another word
				name, best = sub.Name(), n
			}
		}
	}
	return name
}

// mistakes returns how many letters must be changed, added, left out or swapped with their neighbours to make b of a:
// the distance of Damerau and Levenshtein without repeated changes (optimal string alignment).
func mistakes(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		for j := range rows[i] {
			switch {
			case i == 0 || j == 0:
				rows[i][j] = i + j
				continue
			case a[i-1] == b[j-1]:
				rows[i][j] = rows[i-1][j-1]
			default:
				rows[i][j] = 1 + min(rows[i-1][j-1], rows[i-1][j], rows[i][j-1])
			}
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}
