package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	authentication "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"

	"banger"
)

// access is what a worker wants of the cluster.
type access struct {
	cluster  kubernetes.Interface
	recorder record.EventRecorder
}

// Event tells the cluster what happens to a Pod.
func (a *access) Event(p *corev1.Pod, warning bool, reason, text string) {
	kind := corev1.EventTypeNormal
	if warning {
		kind = corev1.EventTypeWarning
	}
	a.recorder.Event(p, kind, reason, text)
}

func (a *access) ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	return a.cluster.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
}

func (a *access) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	return a.cluster.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
}

func (a *access) Missing(err error) bool { return errors.IsNotFound(err) }

// Token returns a new token of a Pod's service account.
func (a *access) Token(ctx context.Context, p *corev1.Pod, s *corev1.ServiceAccountTokenProjection) (string, error) {
	account := p.Spec.ServiceAccountName
	if account == "" {
		account = "default"
	}
	r := &authentication.TokenRequest{Spec: authentication.TokenRequestSpec{ExpirationSeconds: s.ExpirationSeconds,
		BoundObjectRef: &authentication.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: p.Name, UID: p.UID}}}
	if s.Audience != "" {
		r.Spec.Audiences = []string{s.Audience}
	}
	got, err := a.cluster.CoreV1().ServiceAccounts(p.Namespace).CreateToken(ctx, account, r, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	return got.Status.Token, nil
}

// Access returns the logins of a Pod's pull secrets. A secret that is not there is left out, as the kubelet does.
func (a *access) Access(ctx context.Context, p *corev1.Pod) (out banger.RegistryAccess, err error) {
	for _, ref := range p.Spec.ImagePullSecrets {
		s, err := a.Secret(ctx, p.Namespace, ref.Name)
		if errors.IsNotFound(err) {
			a.Event(p, true, "FailedToRetrieveImagePullSecret", "there is no secret "+ref.Name)
			continue
		}
		if err != nil {
			return out, err
		}
		logins, err := logins(s, p)
		if err != nil {
			return out, err
		}
		out.Logins = append(out.Logins, logins...)
	}
	return out, nil
}

// logins returns the logins of a secret for the images of a Pod.
func logins(s *corev1.Secret, p *corev1.Pod) (list []banger.RegistryLogin, err error) {
	var config struct {
		Auths map[string]struct{ Username, Password, Auth string } `json:"auths"`
	}
	if err := json.Unmarshal(s.Data[corev1.DockerConfigJsonKey], &config); err != nil {
		return nil, fmt.Errorf("the pull secret %s is no configuration of docker", s.Name)
	}
	place := repository(p.Spec.Containers[0].Image)
	for name, one := range config.Auths {
		host := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(name, "https://"), "http://"), "/")
		host = strings.TrimSuffix(strings.TrimSuffix(host, "/v1"), "/v2")
		if host == "index.docker.io" {
			host = "docker.io"
		}
		if place != host && !strings.HasPrefix(place, host+"/") {
			continue
		}
		if raw, err := base64.StdEncoding.DecodeString(one.Auth); err == nil && one.Username == "" {
			one.Username, one.Password, _ = strings.Cut(string(raw), ":")
		}
		list = append(list, banger.RegistryLogin{Places: []string{place}, Username: one.Username,
			Password: banger.Secret(one.Password)})
	}
	return list, nil
}

// repository returns HOST[:PORT]/REPOSITORY of an image's reference.
func repository(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		image = image[:i]
	}
	first, _, several := strings.Cut(image, "/")
	switch {
	case !several:
		return "docker.io/library/" + image
	case !strings.ContainsAny(first, ".:") && first != "localhost":
		return "docker.io/" + image
	}
	return image
}
