//go:build bench

package bench

import "fmt"

// maxWorkSeconds is the bound of the second call of work, from the command to its end.
const maxWorkSeconds = 1.5

// work measures a command in the VM of a repository that has one already, beside an exec in the same VM.
func (b *bench) work() {
	repo := b.repository()
	b.cli("work", "-q", "--name", "worked", repo, image, "--", "true")
	b.removeAtEnd("worked")
	var again, exec []float64
	for i := range 2 * b.pairs {
		turns := []func(){
			func() { again = append(again, b.seconds(b.command("work", "-q", repo, "--", "true"))) },
			func() { exec = append(exec, b.seconds(b.command("exec", "worked", "true"))) },
		}
		for j := range turns {
			turns[(i+j)%len(turns)]()
		}
	}
	files := fmt.Sprintf("%d files: ", filesOfARepository)
	b.addPairs(files+"work -- true again, beside exec true", "s", again, exec, 0, false)
	b.addSpread(files+"work -- true again", "s", again, maxWorkSeconds)
	b.cli("rm", "-f", "worked")
}
