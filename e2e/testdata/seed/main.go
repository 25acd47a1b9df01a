// Command seed prints a number that depends on the seed of Go's hash tables.
package main

import (
	"fmt"
	"hash/maphash"
)

func main() { fmt.Println(maphash.String(maphash.MakeSeed(), "")) }
