package banger

import (
	"crypto/rand"
	"encoding/hex"
	"math/big"
	"regexp"
	"strings"
)

var (
	nameRE = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	idRE   = regexp.MustCompile(`^[0-9a-f]{12}$`)
)

// CheckName returns an *Error of CodeInvalid unless name is a DNS label (RFC 1123 section 2.1, lower case). Names are
// used in host names, DNS, paths and ssh configs, so CheckName normalises nothing.
func CheckName(name string) error {
	if nameRE.MatchString(name) {
		return nil
	}
	return Errorf(CodeInvalid, "%q is not a valid VM name", name).
		WithHint("use 1 to 63 lower-case letters, digits and inner hyphens")
}

// CheckHostname returns an *Error of CodeInvalid unless h is one or more DNS labels joined by dots, with at most 64
// bytes in all (Linux HOST_NAME_MAX).
func CheckHostname(h string) error {
	ok := len(h) <= 64
	for label := range strings.SplitSeq(h, ".") {
		ok = ok && nameRE.MatchString(strings.ToLower(label))
	}
	if !ok {
		return Errorf(CodeInvalid, "%q is not a valid host name", h)
	}
	return nil
}

// ValidID reports whether s has the form of a VM id: 12 hex digits.
func ValidID(s string) bool { return idRE.MatchString(s) }

// NewID returns a random VM id.
func NewID() string {
	var b [6]byte
	rand.Read(b[:]) // never fails (crypto/rand, Go 1.24)
	return hex.EncodeToString(b[:])
}

// NewName returns a random friendly name such as "quiet-otter". The name may be taken; then the caller tries again.
func NewName() string { return pick(adjectives) + "-" + pick(animals) }

func pick(words []string) string {
	i, err := rand.Int(rand.Reader, big.NewInt(int64(len(words))))
	if err != nil {
		panic(err) // the reader of crypto/rand never fails
	}
	return words[i.Int64()]
}

var adjectives = strings.Fields(
	`able amber bold brave bright brisk calm clear clever cosy crisp curious deft eager early
	easy fair fast fine firm fond frank free fresh gentle glad golden grand green happy hardy honest jolly keen kind late
	light lively loyal lucky mellow merry mild modest neat nimble noble open patient plain polite proud quick quiet rapid
	ready ripe rosy sharp shy silent silver simple sleek smart smooth snug soft solid spry steady still stout sunny sure
	sweet swift tame tidy true vivid warm wary wide wild wise witty young`)

var animals = strings.Fields(
	`ant ape badger bat bear beaver bee bison boar bream calf camel carp cat civet clam cobra cod
	colt crab crane crow deer dingo dove duck eagle eel egret elk emu falcon ferret finch fox frog gecko gnu goat goose
	grebe grouse gull hare hawk heron horse hound ibex ibis jackal jay kite kiwi koala lamb lark lemur lion llama lynx
	magpie marten mink mole moose moth mouse mule newt okapi orca osprey otter owl ox panda perch pike pony puffin quail
	rabbit ram raven robin rook seal shrew skunk sloth snail sole stoat stork swan swift tapir tern tiger toad trout vole
	wasp weasel whale wolf wombat wren yak zebra`)
