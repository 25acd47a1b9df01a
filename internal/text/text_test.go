package text

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"banger"
)

// characters are kinds of text that are not printable, and their printable forms.
var characters = []struct{ name, raw, shown string }{
	{"escape", "\x1b[2J", `\x1b[2J`},
	{"bell", "\a", `\x07`},
	{"NUL", "\x00", `\x00`},
	{"backspace", "\b", `\x08`},
	{"delete", "\x7f", `\x7f`},
	{"return", "a\rb", `a\x0db`},
	{"C1 as UTF-8", "\u009b31m", `\u009b31m`},
	{"C1 as a byte", "\x9b31m", `\x9b31m`},
	{"next line", "\u0085", `\u0085`},
	{"no UTF-8", "a\xff\xc3", `a\xff\xc3`},
	{"a surrogate", "\xed\xa0\x80", `\xed\xa0\x80`},
	{"overlong", "\xc0\x9b", `\xc0\x9b`},
	{"left-to-right mark", "\u200e", `\u200e`},
	{"right-to-left mark", "\u200f", `\u200f`},
	{"Arabic letter mark", "\u061c", `\u061c`},
	{"embeddings", "\u202a\u202b\u202c", `\u202a\u202b\u202c`},
	{"overrides", "\u202d\u202e", `\u202d\u202e`},
	{"isolates", "\u2066\u2067\u2068\u2069", `\u2066\u2067\u2068\u2069`},
	{"zero width", "\u200b\u200c\u200d\u2060", `\u200b\u200c\u200d\u2060`},
	{"byte order mark", "\ufeff", `\ufeff`},
	{"soft hyphen", "\u00ad", `\u00ad`},
	{"line separators", "\u2028\u2029", `\u2028\u2029`},
	{"tags", "\U000e0001\U000e0041\U000e007f", `\U000e0001\U000e0041\U000e007f`},
	{"variation selectors", "\ufe0f\U000e0100", `\ufe0f\U000e0100`},
	{"fillers", "\u3164\u115f\u034f", `\u3164\u115f\u034f`},
	{"annotations", "\ufff9\ufffb", `\ufff9\ufffb`},
	{"private use", "\ue000", `\ue000`},
	{"no character", "\uffff", `\uffff`},
}

// printable is text that stays unchanged.
const printable = "Grüße, 世界! \u00a0«žluťoučký» עברית العربية ☃ 🙂 \ufffd \\x1b a\u0301"

func TestLine(t *testing.T) {
	for _, c := range characters {
		if got := Line("a" + c.raw + "z"); got != "a"+c.shown+"z" {
			t.Errorf("%s is %q, not %q", c.name, got, "a"+c.shown+"z")
		}
	}
	if got := Line(printable); got != printable {
		t.Errorf("%q became %q", printable, got)
	}
	if got := Line("a\n\tb"); got != "a  b" {
		t.Errorf("lines became %q", got)
	}
}

func TestLimit(t *testing.T) {
	for _, c := range []struct {
		in   string
		max  int
		want string
	}{
		{"short", 5, "short"},
		{"longer", 5, "long…"},
		{"äöüßé", 5, "äöüßé"},
		{"äöüßéè", 5, "äöüß…"},
		{"  a \n", 5, "a"},
		{"\x1b\x1b", 5, `\x1b…`},
		{"🙂🙂🙂", 3, "🙂🙂🙂"},
		{strings.Repeat("🙂", 1000), 3, "🙂🙂…"},
		{"", 3, ""},
	} {
		if got := Limit(c.in, c.max); got != c.want {
			t.Errorf("%q within %d is %q, not %q", c.in, c.max, got, c.want)
		}
	}
	if got := Limit(strings.Repeat("\u202e", 900_000), MaxError); utf8.RuneCountInString(got) != MaxError {
		t.Errorf("it has %d characters", utf8.RuneCountInString(got))
	}
}

func TestAnErrorIsBounded(t *testing.T) {
	long := strings.Repeat("x\u202e", 450_000)
	e := Error(banger.Error{Code: banger.Code(long), Message: long, Hint: long})
	if len(e.Error()) > 2000 || len(e.Code) > 100 || strings.ContainsRune(e.Error(), '\u202e') {
		t.Errorf("it has %d bytes: %.100s", len(e.Error()), e)
	}
	if e := Error(banger.Error{Code: banger.CodeDenied, Message: "no", Hint: "ask"}); e.Error() != "no (ask)" ||
		e.Code != banger.CodeDenied {
		t.Errorf("it is %+v", e)
	}
}

// TestJSON checks that a document has no such character, and still has the same meaning.
func TestJSON(t *testing.T) {
	for _, c := range characters {
		in := map[string]any{"k" + c.raw: []any{c.raw, "plain", printable}}
		for _, indent := range []string{"", "  "} {
			var out bytes.Buffer
			if err := WriteJSON(&out, in, indent); err != nil {
				t.Fatal(err)
			}
			if at := strings.IndexFunc(out.String(), func(r rune) bool { return r != '\n' && !Printable(r) }); at >= 0 {
				t.Errorf("%s: %q is left in %s", c.name, out.String()[at:], out.String())
			}
			valid := strings.ToValidUTF8(c.raw, "\ufffd")
			if strings.Count(c.raw, "\xed\xa0\x80") > 0 || c.name == "overlong" || c.name == "no UTF-8" {
				continue // each byte becomes U+FFFD by itself
			}
			var back any
			if err := json.Unmarshal(out.Bytes(), &back); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
			if want := any(map[string]any{"k" + valid: []any{valid, "plain", printable}}); !reflect.DeepEqual(back, want) {
				t.Errorf("%s: %q became %q", c.name, want, back)
			}
		}
	}
}

// TestWriter writes a stream in pieces of each length.
func TestWriter(t *testing.T) {
	in, want := "start\r\n\t\x1b[0;1;31mred\x1b[m\x1b[38:5:1m end", "start\n\tred end"
	for _, c := range characters {
		in += c.raw + printable + "|"
		want += c.shown + printable + "|"
	}
	in += "\x1b[1;2H\x1b]0;title\a\x1b[" + strings.Repeat("1;", 20) + "m\x1b[3"
	want += `\x1b[1;2H\x1b]0;title\x07\x1b[` + strings.Repeat("1;", 20) + `m\x1b[3`
	for size := 1; size < len(in)+1; size++ {
		var out bytes.Buffer
		w := NewWriter(&out)
		for rest := []byte(in); len(rest) > 0; rest = rest[min(size, len(rest)):] {
			if n, err := w.Write(rest[:min(size, len(rest))]); n != min(size, len(rest)) || err != nil {
				t.Fatal(n, err)
			}
		}
		if err := w.Flush(); err != nil || out.String() != want {
			t.Fatalf("in pieces of %d it is\n%q, not\n%q, %v", size, out.String(), want, err)
		}
	}
}

// FuzzPrintable checks that no input makes the output unprintable.
func FuzzPrintable(f *testing.F) {
	for _, c := range characters {
		f.Add(c.raw, 3)
	}
	f.Fuzz(func(t *testing.T, s string, cut int) {
		bad := func(r rune) bool { return !Printable(r) }
		if line := Line(s); strings.ContainsFunc(line, bad) || !utf8.ValidString(line) {
			t.Errorf("the line is %q", line)
		}
		var out bytes.Buffer
		w := NewWriter(&out)
		at := min(max(cut, 0), len(s))
		w.Write([]byte(s[:at]))
		w.Write([]byte(s[at:]))
		w.Flush()
		if strings.ContainsFunc(out.String(), func(r rune) bool { return r != '\n' && r != '\t' && bad(r) }) ||
			!utf8.Valid(out.Bytes()) {
			t.Errorf("the stream is %q", out.String())
		}
	})
}
