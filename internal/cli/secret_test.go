package cli

import "testing"

// TestSecrets gives a VM secrets, lists them and takes them back. The values are in no output.
func TestSecrets(t *testing.T) {
	t.Parallel()
	h := newCLIHost(t)
	h.box("box")
	const absent = "banger: the variable \"NONESUCH\", which has the secret NONESUCH, is not set " +
		"(set and export it, or name a file: NONESUCH=file:PATH)\n"
	h.check(
		line{args: "secret set box KEY=file:- HOME", stdin: "value"},
		line{args: "secret ls -q box", stdout: "HOME\nKEY\n"},
		line{args: "secret ls box", stdout: "NAME   GIVEN\nHOME   …"},
		line{args: "exec --secret-env KEY box -- sh -c 'echo ${#KEY}'", stdout: "5\n"},
		line{args: "exec --secret-env NEW=file:- box -- sh -c 'echo ${#NEW}'", stdin: "longer\n", stdout: "6\n"},
		line{args: "session start -q --name one --secret-env KEY box -- sh -c 'echo ${#KEY}'", stdout: "one\n"},
		line{args: "session wait box one", stdout: "0\n"},
		line{args: "logs --session one box", stdout: "5\n"},
		line{args: "suspend box", code: 1,
			stderr: "banger: cannot suspend VM box: its memory would be written to the disk, with its secrets HOME, KEY, NEW …"},
		line{args: "secret rm box HOME KEY NEW", stdout: "HOME\nKEY\nNEW\n"},
		line{args: "secret rm box KEY", code: 1, stderr: "banger: VM box has no secret \"KEY\" (see: banger secret ls box)\n"},
		line{args: "secret set box NONESUCH", code: 1, stderr: absent},
		line{args: "create --secret NONESUCH IMAGE", code: 1, stderr: absent},
		line{args: "exec --secret-env NONESUCH box -- true", code: 125,
			stderr: "banger: neither this shell has a variable NONESUCH nor VM box such a secret …"},
		line{args: "exec -i --secret KEY=file:- box -- true", code: 125,
			stderr: "banger: the secret KEY cannot come from stdin, which something else reads …"},
		line{args: "run --with-secrets IMAGE", code: 125, stderr: "banger: --with-secrets is about a snapshot …"},
		line{args: "secret ls no", code: 1, stderr: noVM},
	)
}
