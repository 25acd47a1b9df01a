package source

import (
	"path/filepath"
	"regexp"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"banger"
	"banger/internal/blob"
)

// The schemes of references that are not names of recipes or in a registry.
const (
	schemeOCI           = "oci:"
	schemeOCIArchive    = "oci-archive:"
	schemeDockerArchive = "docker-archive:"
	schemeDockerDaemon  = "docker-daemon:"
	schemePodman        = "podman:"
)

// These patterns refuse what the library allows and docker does not (distribution/reference).
var (
	repositoryRE = regexp.MustCompile(`^[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*)*$`)
	registryRE   = regexp.MustCompile(`^[A-Za-z0-9\[]`)
)

// Normalize returns the canonical form of a reference, under which images are listed and compared.
// It returns an *Error of CodeInvalid if ref is not valid.
func Normalize(ref string) (string, error) {
	if IsRecipe(ref) || blob.CheckDigest(ref) == nil {
		return ref, nil
	}
	for _, scheme := range []string{schemeOCI, schemeOCIArchive, schemeDockerArchive} {
		path, ok := strings.CutPrefix(ref, scheme)
		if !ok {
			continue
		}
		if !filepath.IsAbs(path) {
			return "", banger.Errorf(banger.CodeInvalid, "the path in %q is not absolute", ref)
		}
		return scheme + filepath.Clean(path), nil
	}
	for _, scheme := range []string{schemeDockerDaemon, schemePodman} {
		if rest, ok := strings.CutPrefix(ref, scheme); ok {
			full, err := normalizeName(rest)
			return scheme + full, err
		}
	}
	return normalizeName(ref)
}

// normalizeName completes the name of a registry's image as docker does.
func normalizeName(ref string) (string, error) {
	r, err := name.ParseReference(ref)
	if err != nil || !repositoryRE.MatchString(r.Context().RepositoryStr()) ||
		!registryRE.MatchString(r.Context().RegistryStr()) {
		return "", banger.Errorf(banger.CodeInvalid, "%.200q is not an image reference", ref).
			WithHint("write it as docker does, or see: banger image pull --help")
	}
	full := r.Name()
	if rest, ok := strings.CutPrefix(full, "index.docker.io/"); ok {
		full = "docker.io/" + rest
	}
	return full, nil
}

// NewName returns the complete form of a name that an image is to get. The name must be one of a registry, with a tag,
// and not that of a recipe.
func NewName(target string) (string, error) {
	full, err := normalizeName(target)
	if err != nil {
		return "", err
	}
	if IsRecipe(target) || strings.Contains(full, "@") {
		return "", banger.Errorf(banger.CodeInvalid, "%q cannot be the name of an image", target).
			WithHint("use a name with a tag, such as mine:v1")
	}
	return full, nil
}

// IsRemote reports whether a normalised reference names an image of a registry.
func IsRemote(ref string) bool {
	if IsRecipe(ref) || strings.HasPrefix(ref, "sha256:") {
		return false
	}
	for _, scheme := range []string{schemeOCI, schemeOCIArchive, schemeDockerArchive, schemeDockerDaemon, schemePodman} {
		if strings.HasPrefix(ref, scheme) {
			return false
		}
	}
	return true
}

// RepoTag returns a normalised reference in docker's form name:tag, or "" if it has no tag.
func RepoTag(ref string) string {
	if IsRecipe(ref) {
		return ref + ":latest"
	}
	tag, err := name.NewTag(ref, name.StrictValidation)
	if err != nil || strings.Contains(ref, "@") {
		return ""
	}
	return strings.TrimPrefix(strings.TrimPrefix(tag.Name(), "index.docker.io/"), "library/")
}
