package config

import (
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"banger"
)

// Allowing returns the text of a repository's file with one more rule, which allows something, in front of the others
// that allow. All else of the text stays, comments included. A file without a policy gets the present one, that of a
// VM, with the rule. notes say what the rule does not do.
//
// It returns an error if the file is wrong, if the place for the rule cannot be found in its text, and if the present
// policy cannot be written in a file, where all rules that deny come first.
func Allowing(raw []byte, rule banger.Rule, present banger.Policy) (text []byte, notes []string, err error) {
	project, err := ParseProject(raw)
	if err != nil {
		return nil, nil, err
	}
	want := project.Policy
	if want == nil {
		if want, err = written(present); err != nil {
			return nil, nil, err
		}
	}
	added := *want
	added.Allow = append([]string{bare(rule)}, want.Allow...)
	if len(added.Deny) > 0 {
		notes = append(notes, "the file's deny rules come before it: "+strings.Join(added.Deny, ", "))
	}
	text = inserted(string(raw), project, added)
	changed, err := ParseProject(text)
	if err != nil || changed.Policy == nil || !reflect.DeepEqual(changed.Policy.Allow, added.Allow) ||
		!reflect.DeepEqual(changed.Policy.Deny, added.Deny) {
		return nil, nil, banger.Errorf(banger.CodeInvalid, "the place for the rule in %s is not clear", ProjectFile).
			WithHint("add it yourself to allow of [policy]: %q", bare(rule))
	}
	return text, notes, nil
}

// bare returns a rule without its action, as the lists of a file have it.
func bare(r banger.Rule) string { return strings.TrimPrefix(r.String(), r.Action+" ") }

// written returns a policy as a file has it.
func written(p banger.Policy) (*Policy, error) {
	out := &Policy{Default: p.Default}
	for _, r := range p.Rules {
		switch {
		case r.Action == banger.Allow:
			out.Allow = append(out.Allow, bare(r))
		case len(out.Allow) > 0:
			return nil, banger.Errorf(banger.CodeInvalid, "the VM's policy has %q behind a rule that allows, which no %s can "+
				"have", r, ProjectFile).WithHint("write a [policy] into %s yourself", ProjectFile)
		default:
			out.Deny = append(out.Deny, bare(r))
		}
	}
	return out, nil
}

// The places of a text behind which a rule goes.
var (
	allowList    = regexp.MustCompile(`(?m)(?:"allow"|'allow'|\ballow)[ \t]*=[ \t]*\[`)
	policyHeader = regexp.MustCompile(`(?m)^[ \t]*\[[ \t]*policy[ \t]*\].*$`)
)

// inserted returns the text of a file with the first rule of p.Allow, or with all of p if it has no policy.
func inserted(text string, project *Project, p Policy) []byte {
	rule := strconv.Quote(p.Allow[0])
	if project.Policy == nil {
		if text = strings.TrimRight(text, "\n"); text != "" {
			text += "\n\n"
		}
		return []byte(text + section(p))
	}
	if len(p.Allow) > 1 || project.file.lines.Has("policy", "allow") {
		from := lineAt(text, project.Line("policy", "allow"))
		at := allowList.FindStringIndex(text[from:])
		if at == nil {
			return nil
		}
		head, rest := text[:from+at[1]], text[from+at[1]:]
		switch next := strings.TrimLeft(rest, " \t"); {
		case strings.HasPrefix(next, "\n"):
			return []byte(head + "\n    " + rule + "," + rest)
		case strings.HasPrefix(next, "]"):
			return []byte(head + rule + rest)
		}
		return []byte(head + rule + ", " + rest)
	}
	at := policyHeader.FindStringIndex(text)
	if at == nil {
		return nil
	}
	return []byte(text[:at[1]] + "\nallow = [" + rule + "]" + text[at[1]:])
}

// lineAt returns where a line begins, counted from 1.
func lineAt(text string, line int) (at int) {
	for ; line > 1; line-- {
		next := strings.IndexByte(text[at:], '\n')
		if next < 0 {
			return at
		}
		at += next + 1
	}
	return at
}

// section returns a policy as a part of a file.
func section(p Policy) string {
	var b strings.Builder
	fmt.Fprintf(&b, "[policy]\ndefault = %q\n", p.Default)
	for _, list := range []struct {
		key   string
		rules []string
	}{{"allow", p.Allow}, {"deny", p.Deny}} {
		if len(list.rules) == 0 {
			continue
		}
		fmt.Fprintf(&b, "%s = [\n", list.key)
		for _, r := range list.rules {
			fmt.Fprintf(&b, "    %q,\n", r)
		}
		b.WriteString("]\n")
	}
	return b.String()
}
