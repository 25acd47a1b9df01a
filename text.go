package banger

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// checkLine rejects control characters in a field that is one line of text. They have no meaning there, and they
// would change how files, terminals and programs read the text.
func checkLine(field, text string) error {
	if !utf8.ValidString(text) {
		return notUTF8(field)
	}
	if strings.ContainsFunc(text, unicode.IsControl) {
		return Errorf(CodeInvalid, "%s is %.80q, but must not contain control characters", field, text)
	}
	return nil
}

// notUTF8 returns the error for bytes that are not text. The API's JSON would replace them by others without a word.
func notUTF8(field string) error {
	return Errorf(CodeInvalid, "%s has bytes that are not UTF-8, which cannot be passed on as they are", field)
}

// checkWords rejects NUL bytes, which the kernel cannot take in an argument or a variable (execve(2)), and bytes that
// are not UTF-8. Control characters are allowed, because they may mean something to the program.
func checkWords(field string, list []string) error {
	for _, s := range list {
		if strings.IndexByte(s, 0) >= 0 {
			return Errorf(CodeInvalid, "%s contains a NUL byte", field)
		}
		if !utf8.ValidString(s) {
			return notUTF8(field)
		}
	}
	return nil
}

// checkText rejects, in each free-text field, the characters that have no meaning there.
func (s *Spec) checkText() error {
	for _, c := range []struct{ field, text string }{
		{"image", s.Image}, {"platform", s.Platform}, {"kernel", s.Kernel}, {"working_dir", s.WorkingDir}, {"user", s.User},
	} {
		if err := checkLine(c.field, c.text); err != nil {
			return err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(s.Labels)) {
		if err := checkLine("a label", key); err != nil {
			return err
		}
		if err := checkLine("label "+key, s.Labels[key]); err != nil {
			return err
		}
	}
	if strings.IndexByte(s.CA, 0) >= 0 {
		return Errorf(CodeInvalid, "ca contains a NUL byte")
	}
	if err := checkWords("entrypoint", s.Entrypoint); err != nil {
		return err
	}
	if err := checkWords("cmd", s.Cmd); err != nil {
		return err
	}
	return cmp.Or(CheckSecrets(s.SecretEnv...), checkEnv(s.Env))
}

// checkText does the same for an Exec as Spec.checkText does for a Spec.
func (e *Exec) checkText() error {
	if err := checkLine("dir", e.Dir); err != nil {
		return err
	}
	if err := checkLine("user", e.User); err != nil {
		return err
	}
	if err := checkWords("command", e.Args); err != nil {
		return err
	}
	return checkEnv(e.Env)
}

// checkEnv requires entries of the form KEY=VALUE. A value may have any character that the kernel takes.
func checkEnv(env []string) error {
	if err := checkWords("environment", env); err != nil {
		return err
	}
	for i, kv := range env {
		key, _, found := strings.Cut(kv, "=")
		if !found || key == "" { // the error does not show the entry, which may be a secret
			return Errorf(CodeInvalid, "entry %d of the environment is not KEY=VALUE", i+1)
		}
		if err := checkLine("a name in the environment", key); err != nil {
			return err
		}
	}
	return nil
}
