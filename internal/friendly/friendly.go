// Package friendly makes random names for things that a user gave no name.
//
// It must not know what has the names, nor which are taken.
package friendly

import (
	"crypto/rand"
	"math/big"
	"strings"
)

// Name returns a random friendly name such as "quiet-otter". The name may be taken; then the caller tries again.
func Name() string { return pick(adjectives) + "-" + pick(animals) }

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
