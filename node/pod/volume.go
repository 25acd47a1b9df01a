package pod

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"banger"
)

// Mount is a volume at a place of the VM.
type Mount struct {
	Path    string // absolute
	SubPath string // a file of the volume, at Path; "" means the whole volume
	Volume  corev1.Volume
	Link    string // the place that has the same emptyDir already; "" for the first one
}

// volumes finds what is mounted. Values of secrets are in memory alone, where a whole volume is mounted.
func (plan *Plan) volumes(p *corev1.Pod) error {
	byName := map[string]corev1.Volume{}
	for _, v := range p.Spec.Volumes {
		byName[v.Name] = v
	}
	first, seen := map[string]string{}, map[string]corev1.VolumeMount{}
	for _, c := range slices.Concat(p.Spec.Containers, p.Spec.InitContainers) {
		for _, m := range c.VolumeMounts {
			v, at := byName[m.Name], path.Clean(m.MountPath)
			if before, is := seen[at]; is {
				if before.Name != m.Name || before.SubPath != m.SubPath {
					return &Unsupported{fmt.Sprintf("two volumes at %s: all containers run in one VM", at)}
				}
				continue
			}
			seen[at] = m
			if err := mountable(v, m); err != nil {
				return err
			}
			one := Mount{Path: at, SubPath: m.SubPath, Volume: v}
			switch empty := v.EmptyDir; {
			case empty != nil && first[v.Name] != "":
				one.Link = first[v.Name]
			case empty != nil:
				first[v.Name] = at
				if empty.Medium == corev1.StorageMediumMemory || plan.Spec.ReadOnly {
					plan.tmpfs(at, "mode=1777", empty.SizeLimit)
				}
			case m.SubPath == "" && (v.ConfigMap == nil && v.DownwardAPI == nil || plan.Spec.ReadOnly):
				plan.tmpfs(at, "mode=0755", nil)
			}
			plan.Mounts = append(plan.Mounts, one)
		}
	}
	return nil
}

func (plan *Plan) tmpfs(at, mode string, size *resource.Quantity) {
	options := []string{mode}
	if size != nil && size.Value() > 0 {
		options = append(options, fmt.Sprintf("size=%d", size.Value()))
	}
	plan.Spec.Tmpfs = append(plan.Spec.Tmpfs, banger.Tmpfs{Path: at, Options: options})
}

func mountable(v corev1.Volume, m corev1.VolumeMount) error {
	switch {
	case m.SubPathExpr != "":
		return &Unsupported{fmt.Sprintf("an expression as the path in volume %s", v.Name)}
	case v.EmptyDir != nil && m.SubPath != "":
		return &Unsupported{fmt.Sprintf("a part of the emptyDir %s at a place of its own", v.Name)}
	case v.EmptyDir != nil && v.EmptyDir.Medium != "" && v.EmptyDir.Medium != corev1.StorageMediumMemory:
		return &Unsupported{fmt.Sprintf("an emptyDir on %s", v.EmptyDir.Medium)}
	case v.EmptyDir != nil, v.ConfigMap != nil, v.Secret != nil, v.DownwardAPI != nil:
		return nil
	case v.Projected != nil:
		for _, s := range v.Projected.Sources {
			if s.ClusterTrustBundle != nil || s.PodCertificate != nil {
				return &Unsupported{fmt.Sprintf("certificates in volume %s", v.Name)}
			}
		}
		return nil
	}
	return &Unsupported{fmt.Sprintf("the volume %s: banger has emptyDir, configMap, secret, downwardAPI and projected",
		v.Name)}
}

// Sources are where the files of volumes come from.
type Sources interface {
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	Token(ctx context.Context, p *corev1.Pod, s *corev1.ServiceAccountTokenProjection) (string, error)
	Missing(err error) bool // says that err is about an object that is not there
}

// file is one file of a volume.
type file struct {
	data []byte
	mode int32
}

// Archive returns a tar of the files of all volumes, for the root of the VM. The function real returns a path in the
// VM without symlinks.
func (plan *Plan) Archive(ctx context.Context, p *corev1.Pod, from Sources, real func(string) (string, error)) ([]byte,
	error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, m := range plan.Mounts {
		files, err := volume(ctx, p, m.Volume, from)
		if err == nil {
			var at string
			if at, err = real(m.Path); err == nil {
				err = m.pack(w, strings.TrimPrefix(at, "/"), files)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("volume %s: %w", m.Volume.Name, err)
		}
	}
	err := w.Close()
	return out.Bytes(), err
}

// pack writes what is at a mount's place.
func (m Mount) pack(w *tar.Writer, at string, files map[string]file) error {
	put := func(name string, f file) error {
		err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: int64(f.mode), Size: int64(len(f.data))})
		if err == nil {
			_, err = w.Write(f.data)
		}
		return err
	}
	if m.Link != "" {
		return w.WriteHeader(&tar.Header{Name: at, Typeflag: tar.TypeSymlink, Linkname: m.Link})
	}
	if m.SubPath != "" {
		f, ok := files[path.Clean(m.SubPath)]
		if !ok {
			return fmt.Errorf("there is no file %q", m.SubPath)
		}
		return put(at, f)
	}
	mode := int64(0o755)
	if m.Volume.EmptyDir != nil {
		mode = 0o777
	}
	if err := w.WriteHeader(&tar.Header{Name: at + "/", Typeflag: tar.TypeDir, Mode: mode}); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := put(path.Join(at, name), files[name]); err != nil {
			return err
		}
	}
	return nil
}

// volume returns the files of a volume by their paths.
func volume(ctx context.Context, p *corev1.Pod, v corev1.Volume, from Sources) (map[string]file, error) {
	files := map[string]file{}
	switch {
	case v.ConfigMap != nil:
		return files, configMap(ctx, files, p, v.ConfigMap.Name, v.ConfigMap.Items, v.ConfigMap.Optional,
			modeOr(v.ConfigMap.DefaultMode), from)
	case v.Secret != nil:
		return files, secret(ctx, files, p, v.Secret.SecretName, v.Secret.Items, v.Secret.Optional,
			modeOr(v.Secret.DefaultMode), from)
	case v.DownwardAPI != nil:
		return files, downward(files, p, v.DownwardAPI.Items, modeOr(v.DownwardAPI.DefaultMode))
	case v.Projected == nil:
		return files, nil
	}
	mode := modeOr(v.Projected.DefaultMode)
	for _, s := range v.Projected.Sources {
		var err error
		switch {
		case s.ConfigMap != nil:
			err = configMap(ctx, files, p, s.ConfigMap.Name, s.ConfigMap.Items, s.ConfigMap.Optional, mode, from)
		case s.Secret != nil:
			err = secret(ctx, files, p, s.Secret.Name, s.Secret.Items, s.Secret.Optional, mode, from)
		case s.DownwardAPI != nil:
			err = downward(files, p, s.DownwardAPI.Items, mode)
		case s.ServiceAccountToken != nil:
			var token string
			token, err = from.Token(ctx, p, s.ServiceAccountToken)
			files[path.Clean(s.ServiceAccountToken.Path)] = file{[]byte(token), mode}
		}
		if err != nil {
			return nil, err
		}
	}
	return files, nil
}

func modeOr(mode *int32) int32 {
	if mode == nil {
		return 0o644
	}
	return *mode
}

func optional(o *bool) bool { return o != nil && *o }

func configMap(ctx context.Context, files map[string]file, p *corev1.Pod, name string, items []corev1.KeyToPath,
	maybe *bool, mode int32, from Sources) error {
	data, err := configMapData(ctx, p.Namespace, name, maybe, from)
	if err != nil || data == nil {
		return err
	}
	return keys(files, data, items, maybe, mode)
}

// configMapData returns the keys of a config map. It returns nil for an optional one that is not there.
func configMapData(ctx context.Context, namespace, name string, maybe *bool, from Sources) (map[string][]byte, error) {
	m, err := from.ConfigMap(ctx, namespace, name)
	if err != nil {
		if optional(maybe) && from.Missing(err) {
			return nil, nil
		}
		return nil, err
	}
	data := map[string][]byte{}
	for k, v := range m.Data {
		data[k] = []byte(v)
	}
	maps.Copy(data, m.BinaryData)
	return data, nil
}

func secret(ctx context.Context, files map[string]file, p *corev1.Pod, name string, items []corev1.KeyToPath,
	maybe *bool, mode int32, from Sources) error {
	data, err := secretData(ctx, p.Namespace, name, maybe, from)
	if err != nil || data == nil {
		return err
	}
	return keys(files, data, items, maybe, mode)
}

// secretData returns the keys of a secret. It returns nil for an optional one that is not there.
func secretData(ctx context.Context, namespace, name string, maybe *bool, from Sources) (map[string][]byte, error) {
	s, err := from.Secret(ctx, namespace, name)
	if err != nil {
		if optional(maybe) && from.Missing(err) {
			return nil, nil
		}
		return nil, err
	}
	if s.Data == nil {
		return map[string][]byte{}, nil
	}
	return s.Data, nil
}

// keys puts keys of an object into files: those of items, or all.
func keys(files map[string]file, data map[string][]byte, items []corev1.KeyToPath, maybe *bool, mode int32) error {
	if len(items) == 0 {
		for k, v := range data {
			files[k] = file{v, mode}
		}
		return nil
	}
	for _, item := range items {
		v, ok := data[item.Key]
		if !ok {
			if optional(maybe) {
				continue
			}
			return fmt.Errorf("there is no key %q", item.Key)
		}
		of := mode
		if item.Mode != nil {
			of = *item.Mode
		}
		files[path.Clean(item.Path)] = file{v, of}
	}
	return nil
}

// downward puts what a Pod says of itself into files.
func downward(files map[string]file, p *corev1.Pod, items []corev1.DownwardAPIVolumeFile, mode int32) error {
	for _, item := range items {
		if item.FieldRef == nil {
			return fmt.Errorf("resources as files are not there")
		}
		value, err := field(p, item.FieldRef.FieldPath)
		if err != nil {
			return err
		}
		of := mode
		if item.Mode != nil {
			of = *item.Mode
		}
		files[path.Clean(item.Path)] = file{[]byte(value), of}
	}
	return nil
}

// field returns a field of a Pod as the downward API names it.
func field(p *corev1.Pod, name string) (string, error) {
	pairs := func(m map[string]string) string {
		var lines []string
		for _, k := range slices.Sorted(maps.Keys(m)) {
			v, _ := json.Marshal(m[k])
			lines = append(lines, k+"="+string(v))
		}
		return strings.Join(lines, "\n")
	}
	switch name {
	case "metadata.name":
		return p.Name, nil
	case "metadata.namespace":
		return p.Namespace, nil
	case "metadata.uid":
		return string(p.UID), nil
	case "spec.nodeName":
		return p.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return p.Spec.ServiceAccountName, nil
	case "status.hostIP", "status.hostIPs":
		return p.Status.HostIP, nil
	case "status.podIP", "status.podIPs":
		return p.Status.PodIP, nil
	case "metadata.labels":
		return pairs(p.Labels), nil
	case "metadata.annotations":
		return pairs(p.Annotations), nil
	}
	for prefix, m := range map[string]map[string]string{"metadata.labels['": p.Labels,
		"metadata.annotations['": p.Annotations} {
		if key, ok := strings.CutPrefix(name, prefix); ok {
			return m[strings.TrimSuffix(key, "']")], nil
		}
	}
	return "", fmt.Errorf("the field %s is not there", name)
}
