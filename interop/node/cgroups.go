package node

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// devices is where Linux mounts its version 1 hierarchy of devices.
const devices = "/sys/fs/cgroup/devices"

// Cgroups are those of pods, named as kubelet's cgroupfs driver names them, in a tree of their own: what a pod may open is for
// the kernel to say.
type Cgroups struct {
	// Path is for NSM_CGROUP_PATH.
	Path string
}

// NewCgroups makes the tree, which needs root and device cgroups of version 1.
func NewCgroups() (*Cgroups, error) {
	path, err := os.MkdirTemp(devices, "interop-")
	if err != nil {
		return nil, fmt.Errorf("cannot make device cgroups: %w", err)
	}
	return &Cgroups{path}, os.MkdirAll(path+"/kubepods/besteffort", 0o755)
}

// container makes the cgroup of a container that may open nothing but /dev/null; as from a runtime, it may make any node.
func (c *Cgroups) container(uid, name string) (string, error) {
	path := filepath.Join(c.Path, "kubepods/besteffort/pod"+uid, name)
	if err := os.MkdirAll(path, 0o755); err != nil {
		return "", err
	}
	rules := []struct{ file, text string }{{"deny", "a"}, {"allow", "c *:* m"}, {"allow", "b *:* m"}, {"allow", "c 1:3 rwm"}}
	for _, rule := range rules {
		if err := os.WriteFile(path+"/devices."+rule.file, []byte(rule.text), 0); err != nil {
			return "", err
		}
	}
	return path, nil
}

// Close removes the tree; a process leaves its cgroup a moment after its end.
func (c *Cgroups) Close() error {
	var folders []string
	err := filepath.WalkDir(c.Path, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			folders = append(folders, path)
		}
		return err
	})
	for i := len(folders) - 1; i >= 0 && err == nil; i-- {
		Eventually(func() bool {
			err = os.Remove(folders[i])
			return err == nil
		})
	}
	return err
}

// cgroupDir is where a container finds itself, as NSM's client sends it: the last name matches every container of the pod.
func cgroupDir() (string, error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.SplitN(strings.TrimSpace(line), ":", 3); len(fields) == 3 && fields[1] == "devices" {
			return strings.TrimPrefix(filepath.Dir(fields[2]), "/") + "/*", nil
		}
	}
	return "", nil
}
