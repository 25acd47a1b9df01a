package screen

import (
	"strings"
	"testing"
)

// streams are outputs of commands, each with something that a drawing must bring back.
var streams = map[string]string{
	"nothing":             "",
	"text":                "hello\r\nworld",
	"a full row":          strings.Repeat("x", 20),
	"wrap":                strings.Repeat("0123456789", 5),
	"scrolling":           strings.Repeat("line\r\n", 10) + "end",
	"no wrap":             "\x1b[?7l" + strings.Repeat("0123456789", 5),
	"attributes":          "\x1b[1mb\x1b[0;2mf\x1b[0;3mi\x1b[0;4mu\x1b[0;5mb\x1b[0;6mr\x1b[0;7mr\x1b[0;8mc\x1b[0;9ms",
	"underlines":          "\x1b[4:1ma\x1b[4:2mb\x1b[4:3mc\x1b[4:4md\x1b[4:5me\x1b[58:5:9mf\x1b[58:2::1:2:3mg\x1b[21mh",
	"16 colours":          "\x1b[31mr\x1b[42mg\x1b[94mb\x1b[105mm\x1b[39;49mn",
	"256 colours":         "\x1b[38;5;1ma\x1b[48;5;200mb\x1b[38:5:77mc",
	"true colours":        "\x1b[38;2;1;2;3ma\x1b[48;2;250;251;252mb\x1b[38:2::9:8:7mc\x1b[38:2:6:5:4md",
	"colour behind blank": "\x1b[44m\x1b[2J\x1b[Hx\x1b[K\x1b[2;5H\x1b[49mx",
	"the pen":             "a\x1b[1;3;33;48;5;17m",
	"wide":                "世界 ok\r\n한글",
	"wide at the edge":    strings.Repeat("世", 10) + "x",
	"wide waits":          strings.Repeat("世", 10),
	"wide does not fit":   strings.Repeat("x", 19) + "世",
	"a cut wide":          "a世界\x1b[3GX",
	"half deleted":        "世界\x1b[1;3H\x1b[P",
	"combining":           "e\u0301 o\u0308\u0323 世\u0301",
	"combining at edge":   strings.Repeat("x", 19) + "e\u0301",
	"cursor moves":        "\x1b[3;7Ha\x1b[2Ab\x1b[3Bc\x1b[4Dd\x1b[Ce\x1b[5Gf\x1b[2dg\x1b[Eh\x1b[Fi",
	"a region":            "1\r\n2\r\n3\r\n4\r\n5\x1b[2;4r\x1b[4;1H\n\nx",
	"origin":              "\x1b[2;5r\x1b[?6h\x1b[2;3Hx",
	"insert lines":        "1\r\n2\r\n3\r\n4\x1b[2;1H\x1b[2Lx\r\x1b[44m\x1b[L",
	"delete lines":        "1\r\n2\r\n3\r\n4\x1b[2;1H\x1b[2Mx",
	"scroll":              "1\r\n2\r\n3\x1b[S\x1b[2T",
	"insert characters":   "abcdef\x1b[1;3H\x1b[2@\x1b[1;9H\x1b[42m\x1b[@",
	"delete characters":   "abcdef\x1b[1;3H\x1b[2P",
	"erase characters":    "abcdef\x1b[1;3H\x1b[2X",
	"erase":               "abc\r\ndef\r\nghi\x1b[2;2H\x1b[1J\x1b[K",
	"erase at the edge":   strings.Repeat("x", 20) + "\x1b[K\x1b[X\x1b[Py",
	"repeat":              "ab\x1b[5bc",
	"tabs":                "\ta\tb\r\n\x1b[3g\x1b[5G\x1bH\r\tc\x1b[Zd",
	"reverse index":       "1\r\n2\x1b[H\x1bM\x1bMx",
	"insert mode":         "abc\r\x1b[4hXY",
	"modes":               "\x1b[?1h\x1b=\x1b[?2004h\x1b[?1002h\x1b[?1006h\x1b[?1004h\x1b[20h\x1b[>4;2m",
	"modes on and off":    "\x1b[?1;2004;1000;1006h\x1b[?1;2004;1000;1006l\x1b=\x1b>",
	"tracking of a mouse": "\x1b[?9h\x1b[?1000h\x1b[?1003h",
	"forms of a mouse":    "\x1b[?1005h\x1b[?1015h\x1b[?1016h",
	"cursor":              "\x1b[?25l\x1b[4 q",
	"saved cursor":        "ab\x1b[31m\x1b7\x1b[5;5H\x1b[mx",
	"saved in a region":   "\x1b[2;5r\x1b[?6h\x1b[3;3H\x1b7\x1b[?6l\x1b[H",
	"charsets":            "\x1b(0lqk\x1b(Bq\x1b)0\x0eqq",
	"the British charset": "\x1b(A#",
	"alternate":           "main\x1b[?1049halt",
	"alternate in a pen":  "m\x1b[31;44main\x1b[?1049h\x1b[m\x1b[3;4Halt\x1b7\x1b[5;6H\x1b[1m",
	"alternate and back":  "main\x1b[?1049halt\x1b[?1049l!",
	"alternate, modes":    "a\x1b(0\x1b[?1049h\x1b(B\x1b[2;4r\x1b[?6h\x1b[?1h",
	"old alternate":       "a\x1b[?47hb\x1b[?1047lc",
	"reset":               "abc\x1b[31m\x1b[2;3r\x1b[?1049hx\x1bcd",
	"soft reset":          "abc\x1b[31m\x1b[2;3r\x1b[?1h\x1b[4h\x1b[!pd",
	"half a sequence":     "ab\x1b[3",
	"half a character":    "ab\xe4\xb8",
	"half a title":        "ab\x1b]0;tit",
	"an ESC":              "ab\x1b",
}

// dirty are earlier states of a client's terminal.
var dirty = map[string]string{
	"fresh":     "",
	"text":      strings.Repeat("dirty ", 50),
	"alternate": "dirty\x1b[?1049h\x1b[41mdirty\x1b7",
	"modes": "\x1b[2;4r\x1b[?6h\x1b[?7l\x1b[4h\x1b[20h\x1b[?1;1003;1006;1015;2004h\x1b=\x1b[?25l\x1b[3 q\x1b[>4;1m" +
		"\x1b)0\x0e\x1b[1;31m\x1b7\x1b[3g",
	"half a title": "\x1b]0;title",
}

func TestADrawingBringsAnyTerminalToTheState(t *testing.T) {
	for name, stream := range streams {
		for before, was := range dirty {
			t.Run(name+" on "+before, func(t *testing.T) {
				a, b := newTerminal(6, 20), newTerminal(6, 20)
				a.write([]byte(stream))
				b.write([]byte(was))
				drawing := drawn(t, 6, 20, stream)
				b.write([]byte(drawing))
				if got, want := dump(b), dump(a); got != want {
					t.Fatalf("the drawing %q shows\n%s\ninstead of\n%s", drawing, got, want)
				}
				more := "more\x1b[?1049lx\x1b8y\r\n\x1b(B"
				a.write([]byte(more))
				b.write([]byte(more))
				a.last, b.last = 0, 0
				if got, want := dump(b), dump(a); got != want {
					t.Errorf("after more output, it shows\n%s\ninstead of\n%s", got, want)
				}
			})
		}
	}
}

func TestScreens(t *testing.T) {
	for name, test := range map[string]struct{ stream, want string }{
		"wrap":              {"0123456789abc", "0123456789\nabc"},
		"wide at the edge":  {"012345678世", "012345678\n世"},
		"full of wide":      {"世界世界世x", "世界世界世\nx"},
		"insert":            {"abc\r\x1b[4hX", "Xabc"},
		"shifted":           {"\x1b)0\x0elqk\x0fl", "┌─┐l"},
		"designated":        {"\x1b(0x\x1b(Bx", "│x"},
		"a region":          {"1\r\n2\r\n3\r\n4\x1b[2;3r\x1b[3;1H\n!", "1\n3\n!\n4"},
		"half of a wide":    {"世\rx", "x"},
		"alternate is gone": {"a\x1b[?1049hb\x1b[?1049lc", "ac"},
		"strings":           {"a\x1b]0;title\x07b\x1bPq#0\x1b\\c\x1b_x\x1b\\d", "abcd"},
		"no UTF-8":          {"a\xffb\xe4\xb8c", "a\ufffdb\ufffd\ufffdc"},
		"controls inside":   {"a\x1b[\r2Cb", "a b"},
		"cancelled":         {"a\x1b[3\x18b", "ab"},
		"erased":            {"abc\x1b[2Jd", "   d"},
	} {
		t.Run(name, func(t *testing.T) {
			term := newTerminal(4, 10)
			term.write([]byte(test.stream))
			if got := text(term.grid.rows()); got != test.want {
				t.Errorf("%q shows %q instead of %q", test.stream, got, test.want)
			}
		})
	}
}

func TestASmallerClientSeesWhatFits(t *testing.T) {
	stream := "1 first row\r\n2\r\n3 世界\r\n4\r\n5\r\n6 last row"
	for name, test := range map[string]struct {
		stream     string
		rows, cols uint16
		want       string
		x, y       int
	}{
		"rows":            {stream, 3, 20, "4\n5\n6 last row", 10, 2},
		"columns":         {stream, 6, 4, "1 fi\n2\n3 世\n4\n5\n6 la", 3, 5},
		"half a wide one": {stream, 6, 3, "1 f\n2\n3\n4\n5\n6 l", 2, 5},
		"cursor far up":   {stream + "\x1b[2;1H", 3, 20, "2\n3 世界\n4", 0, 0},
		"unknown":         {stream, 0, 0, "1 first row\n2\n3 世界\n4\n5\n6 last row", 10, 5},
		"larger":          {stream, 9, 30, "1 first row\n2\n3 世界\n4\n5\n6 last row", 10, 5},
		"a full row, larger": {"\x1b[6;1H" + strings.Repeat("x", 20), 6, 30,
			strings.Repeat("\n", 5) + strings.Repeat("x", 20), 19, 5},
		"in a region": {stream + "\x1b[4;6r\x1b[?6h\x1b[2;2H", 2, 20, "5\n6 last row", 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, 6, 20)
			s.Append([]byte(test.stream), uint64(len(test.stream)))
			drawing, _ := s.Draw(test.rows, test.cols)
			rows, cols := int(test.rows), int(test.cols)
			if rows == 0 {
				rows, cols = 6, 20
			}
			client := newTerminal(rows, cols)
			client.write(drawing)
			if got := text(client.grid.rows()); got != test.want {
				t.Errorf("it shows %q instead of %q", got, test.want)
			}
			if client.x != test.x || client.y != test.y {
				t.Errorf("the cursor is at %d, %d instead of %d, %d", client.x, client.y, test.x, test.y)
			}
		})
	}
}

func TestSizesChange(t *testing.T) {
	for name, test := range map[string]struct {
		stream     string
		rows, cols uint16
		more, want string
	}{
		"fewer rows":      {"1\r\n2\r\n3\r\n4", 2, 10, "!", "3\n4!"},
		"more rows":       {"1\r\n2", 8, 10, "\r\n3\r\n4\r\n5", "1\n2\n3\n4\n5"},
		"fewer columns":   {"0123456789", 4, 5, "\rx", "x1234"},
		"more columns":    {"0123456789", 4, 12, "\r\nabcdefghijkl", "0123456789\nabcdefghijkl"},
		"half a wide one": {"0123世", 4, 5, "\r", "0123"},
		"a region ends":   {"1\r\n2\r\n3\x1b[1;2r", 3, 10, "\x1b[3;1H\n!", "2\n3\n!"},
		"alternate":       {"1\r\n2\r\n3\x1b[?1049hx", 3, 12, "\x1b[?1049l!", "1\n2\n3!"},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, 4, 10)
			s.Append([]byte(test.stream), uint64(len(test.stream)))
			s.Resize(test.rows, test.cols)
			s.Append([]byte(test.more), uint64(len(test.stream)+len(test.more)))
			drawing, _ := s.Draw(0, 0)
			client := newTerminal(int(test.rows), int(test.cols))
			client.write(drawing)
			if got := text(client.grid.rows()); got != test.want {
				t.Errorf("it shows %q instead of %q", got, test.want)
			}
		})
	}
}
