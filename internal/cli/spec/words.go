package spec

import (
	"fmt"
	"strconv"
	"strings"
	"time"

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

// Restart parses no, on-failure, on-failure:N or always.
func Restart(text string) (p banger.RestartPolicy, err error) {
	name, max, limited := strings.Cut(text, ":")
	p.Name = name
	if limited {
		if p.Max, err = strconv.Atoi(max); err != nil || p.Max < 1 || name != banger.RestartOnFailure {
			return p, banger.Errorf(banger.CodeInvalid, "restart is %.40q, but must be no, on-failure[:N] or always", text)
		}
	}
	return p, p.Check()
}

// TTL parses the time to live of a VM: TIME[=rm|stop|suspend], such as 8h, or none.
func TTL(text string) (banger.Timer, error) {
	return timer("ttl", text, false)
}

// Idle parses the time after which an idle VM is parked: TIME[=suspend|stop], such as 15m, or none.
func Idle(text string) (banger.Timer, error) { return timer("idle", text, true) }

// timer parses TIME[=ACTION]. none and 0 give the zero value.
func timer(field, text string, idle bool) (t banger.Timer, err error) {
	if text == "" || text == "none" || text == "0" {
		return t, nil
	}
	word, action, chosen := strings.Cut(text, "=")
	after, err := time.ParseDuration(word)
	if err != nil || after < time.Second {
		return t, banger.Errorf(banger.CodeInvalid, "%s is %.40q, but must be a time of at least 1s, such as 15m or 15m=stop",
			field, text).WithHint("units are s, m and h; none switches it off")
	}
	t = banger.Timer{Seconds: int64(after / time.Second), Action: banger.TimerActions(idle)[0]}
	if chosen {
		t.Action = action
	}
	return t, t.Check(idle)
}
