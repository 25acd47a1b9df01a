// Package console writes the agent's messages where the host reads them: on the
// guest's console. It knows nothing of what the messages are about.
package console

import (
	"fmt"
	"os"
)

// prefix starts each message. The host looks for it in what a guest that did not
// boot has printed.
const prefix = "banger-agent: "

// Say prints one line of text.
func Say(text string) { fmt.Println(prefix + text) }

// Warn prints an error that the agent goes on after.
func Warn(err error) { fmt.Fprintf(os.Stderr, prefix+"%v\n", err) }
