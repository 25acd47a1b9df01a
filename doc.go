// Package banger holds the nouns of the product and their rules: VM, Image,
// Exec, Event, Error, names and states. The same banger.VM travels from the CLI
// over the wire to the supervisor and is converted only at the edges (SQL row,
// VMM config, guest frame).
//
// It performs no I/O of its own, knows nothing of HTTP, SQL, Linux or any VMM,
// and imports no other package of this module.
package banger

// APIVersion is the version of the daemon's HTTP API; a client and a daemon
// whose numbers differ refuse to talk.
const APIVersion = 1
