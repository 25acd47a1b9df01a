package tree

import (
	"strings"
	"unicode/utf8"
)

// IsGitName reports whether a component of a path means a repository's own directory to some file system or some git:
// .git in any case, with characters that HFS+ ignores, or in the short or padded forms of NTFS (git's path.c,
// is_ntfs_dotgit and is_hfs_dotgit).
func IsGitName(name string) bool {
	var plain strings.Builder
	for _, r := range name {
		if !hfsIgnores(r) {
			plain.WriteRune(r)
		}
	}
	s, _, _ := strings.Cut(strings.ToLower(plain.String()), ":")
	s = strings.TrimRight(s, ". ")
	return s == ".git" || s == "git~1"
}

// hfsIgnores reports whether HFS+ leaves a character out when it compares names (git's utf8.c, next_hfs_char).
func hfsIgnores(r rune) bool {
	return r >= 0x200c && r <= 0x200f || r >= 0x202a && r <= 0x202e || r >= 0x206a && r <= 0x206f || r == 0xfeff
}

// MaxPath and maxDepth bound a path that comes out of a guest: its bytes, and its components.
const (
	MaxPath  = 4095
	maxDepth = 256
)

// CheckPath returns what is wrong with a path of a guest's file, or "". The path is relative, with slashes between
// its components.
func CheckPath(path string) string {
	if path == "" || len(path) > MaxPath || strings.ContainsRune(path, 0) {
		return "it is empty, too long or has a zero byte"
	}
	parts := strings.Split(path, "/")
	if len(parts) > maxDepth {
		return "it is too deep"
	}
	for _, part := range parts {
		switch {
		case part == "" || part == "." || part == "..":
			return "it has an empty component, . or .."
		case len(part) > 255:
			return "a component is longer than 255 bytes"
		case IsGitName(part):
			return "a component means a repository's own directory"
		case strings.Contains(part, "\\"):
			return "it has a backslash, which parts paths on other systems"
		}
	}
	return ""
}

// GitPart splits the path of a file in a repository's own directory: the prefix of the repository's working tree,
// which is "" or ends with a slash, and the rest behind .git/. ok is false for other files.
func GitPart(path string) (prefix, rest string, ok bool) {
	if rest, ok := strings.CutPrefix(path, ".git/"); ok {
		return "", rest, true
	}
	at := strings.Index(path, "/.git/")
	if at < 0 {
		return "", "", false
	}
	return path[:at+1], path[at+len("/.git/"):], true
}

// Quoted returns a path for git fast-import and for people: as it is, or with C's escapes between double quotes.
func Quoted(path string) string {
	plain := utf8.ValidString(path) && path != "" && path[0] != '"'
	for _, b := range []byte(path) {
		plain = plain && b >= ' ' && b != 0x7f && b != '\\'
	}
	if plain {
		return path
	}
	var s strings.Builder
	s.WriteByte('"')
	for _, b := range []byte(path) {
		switch {
		case b == '"' || b == '\\':
			s.WriteByte('\\')
			s.WriteByte(b)
		case b < ' ' || b >= 0x7f:
			s.Write([]byte{'\\', '0' + b>>6, '0' + b>>3&7, '0' + b&7})
		default:
			s.WriteByte(b)
		}
	}
	s.WriteByte('"')
	return s.String()
}
