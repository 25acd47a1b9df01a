// Package nearest finds the known word that a person most probably meant by another one.
//
// It must not know what the words are for.
package nearest

import "strings"

// maxMistakes is how many mistakes a word may have for another one to be suggested.
const maxMistakes = 2

// Word returns the word of known that a user most probably meant by word, or "". The first of several is the one.
func Word(word string, known []string) (near string) {
	if word == "" {
		return ""
	}
	best := maxMistakes + 1
	for _, k := range known {
		n := mistakes(strings.ToLower(word), k)
		if strings.HasPrefix(k, word) {
			n = min(n, 1)
		}
		if n < best && n < len(k) { // a short word with all its letters wrong is another word
			near, best = k, n
		}
	}
	return near
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
