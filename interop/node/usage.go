package node

import (
	"fmt"
	"os"
	"strings"
)

// Usage is what the process has of the kernel.
type Usage struct {
	Descriptors, Namespaces int
	ResidentKiB             int
}

// Usage reads it from /proc.
func (f *Forwarder) Usage() (Usage, error) {
	var usage Usage
	folder := fmt.Sprintf("/proc/%d", f.command.Process.Pid)
	names, err := os.ReadDir(folder + "/fd")
	if err != nil {
		return usage, err
	}
	for _, name := range names {
		target, err := os.Readlink(folder + "/fd/" + name.Name())
		if err != nil {
			continue // closed since
		}
		usage.Descriptors++
		if strings.HasPrefix(target, "net:") {
			usage.Namespaces++
		}
	}
	status, err := os.ReadFile(folder + "/status")
	if err != nil {
		return usage, err
	}
	for line := range strings.Lines(string(status)) {
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &usage.ResidentKiB); err == nil {
			return usage, nil
		}
	}
	return usage, fmt.Errorf("%s/status has no VmRSS", folder)
}
