package text

import "bytes"

// LastLines returns the last n lines of a log, or all if n is negative. A last line without a line end counts as one.
// The result is a part of text.
func LastLines(text []byte, n int) []byte {
	if n < 0 {
		return text
	}
	at := len(text)
	if bytes.HasSuffix(text, []byte("\n")) {
		at--
	}
	for ; n > 0; n-- {
		at = bytes.LastIndexByte(text[:max(at, 0)], '\n')
		if at < 0 {
			return text
		}
	}
	if at == len(text) || at == len(text)-1 {
		return nil
	}
	return text[at+1:]
}
