package spec

import (
	"fmt"
	"strconv"
	"strings"

	"banger"
)

// This file reads single values as users write them.

// hostEntry reads docker's --add-host: NAME:ADDRESS or NAME=ADDRESS, where an address of IPv6 may have brackets.
// It returns an *banger.Error of CodeInvalid.
func hostEntry(text string) (banger.HostEntry, error) {
	at := strings.IndexAny(text, ":=")
	if at < 0 {
		return banger.HostEntry{}, banger.Errorf(banger.CodeInvalid, "%.80q is not a name and an address", text).
			WithHint("for example: --add-host db:10.0.0.7, or --add-host host:host-gateway")
	}
	e := banger.HostEntry{Name: text[:at], Address: text[at+1:]}
	if inner, ok := strings.CutPrefix(e.Address, "["); ok {
		e.Address = strings.TrimSuffix(inner, "]")
	}
	return e, e.Check()
}

// ulimit reads a limit as docker's --ulimit does: NAME=SOFT[:HARD], where -1 means unlimited. Without HARD, both
// are SOFT. It returns an *banger.Error of CodeInvalid.
func ulimit(text string) (banger.Ulimit, error) {
	bad := func(why string) (banger.Ulimit, error) {
		return banger.Ulimit{}, banger.Errorf(banger.CodeInvalid, "%.80q is not a limit: %s", text, why).
			WithHint("for example: nofile=1024:2048")
	}
	name, value, found := strings.Cut(text, "=")
	if !found {
		return bad("it is not NAME=SOFT[:HARD]")
	}
	soft, hard, found := strings.Cut(value, ":")
	if !found {
		hard = soft
	}
	u := banger.Ulimit{Name: name}
	for _, v := range []struct {
		text string
		to   *int64
	}{{soft, &u.Soft}, {hard, &u.Hard}} {
		n, err := strconv.ParseInt(v.text, 10, 64)
		if err != nil || n < banger.Unlimited {
			return bad(fmt.Sprintf("%q is not a number, nor -1 for unlimited", v.text))
		}
		*v.to = n
	}
	if err := u.Check(); err != nil {
		return bad(err.Error())
	}
	return u, nil
}

// tmpfs reads docker's --tmpfs: PATH[:OPTION,...]. It returns an *banger.Error of CodeInvalid.
func tmpfs(text string) (banger.Tmpfs, error) {
	at, options, found := strings.Cut(text, ":")
	t := banger.Tmpfs{Path: at}
	if found {
		t.Options = strings.Split(options, ",")
	}
	return t, t.Check()
}
