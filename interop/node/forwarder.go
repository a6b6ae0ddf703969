// Package node is the machine that the peers live on: the forwarder's process, its sockets, kubelet, network namespaces.
// It knows nothing of NSM's messages.
package node

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Settings of a forwarder that differ between scenarios.
type Settings struct {
	// VFs of the pretend card, an even number; 8 by default.
	VFs int
	// Env is added to the forwarder's environment: NSM_MAX_TOKEN_LIFETIME=5s.
	Env []string
	// PluginFolder and PodResourcesFolder of kubelet; folders of the node by default.
	PluginFolder, PodResourcesFolder string
	// Killable puts the forwarder into a process of its own beside the card, for Kill.
	Killable bool
}

// Forwarder is the process under test, bundled as it is shipped.
type Forwarder struct {
	// Folder of its sockets and files.
	Folder  string
	command *exec.Cmd
	input   io.WriteCloser
	output  *bufio.Scanner
	mutex   sync.Mutex
}

// The runner says where the program and its Node are.
const (
	programVariable = "INTEROP_FORWARDER"
	nodeVariable    = "INTEROP_NODE"
)

// Open starts the process with its card; the forwarder in it waits for Start.
func Open(folder string, settings Settings) (*Forwarder, error) {
	program := os.Getenv(programVariable)
	if program == "" {
		return nil, errors.New("cannot start the forwarder: " + programVariable + " is not set; run npm run interop")
	}
	vfs := settings.VFs
	if vfs == 0 {
		vfs = 8
	}
	args := append(strings.Fields(os.Getenv("INTEROP_NODE_FLAGS")), program, fmt.Sprint(vfs))
	command := exec.Command(os.Getenv(nodeVariable), args...)
	command.Env = append(append(os.Environ(), environment(folder, settings)...), settings.Env...)
	log, err := os.Create(filepath.Join(folder, "forwarder.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	command.Stderr = log
	input, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	output, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"plugins", "pods", "state"} {
		if err := os.MkdirAll(filepath.Join(folder, name), 0o700); err != nil {
			return nil, err
		}
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	return &Forwarder{Folder: folder, command: command, input: input, output: bufio.NewScanner(output)}, nil
}

func environment(folder string, settings Settings) []string {
	plugins, pods := settings.PluginFolder, settings.PodResourcesFolder
	if plugins == "" {
		plugins = folder + "/plugins"
	}
	if pods == "" {
		pods = folder + "/pods"
	}
	env := []string{
		"NSM_NAME=" + ForwarderName,
		"NSM_NS_NAME=forwarder",
		"NSM_CONNECT_TO=unix://" + folder + "/nsm.sock",
		"NSM_DEVICE_PLUGIN_PATH=" + plugins + "/",
		"NSM_POD_RESOURCES_PATH=" + pods + "/",
		"NSM_STATE_PATH=" + folder + "/state",
		"NSM_ADMIN_LISTEN_ON=off",
		"NSM_LOG_LEVEL=DEBUG",
		"NSM_DIAL_TIMEOUT=1m", // a handshake between two busy processes is no dead endpoint
		"SPIFFE_ENDPOINT_SOCKET=unix://" + folder + "/agent.sock",
	}
	if settings.Killable {
		env = append(env, "INTEROP_KILLABLE="+os.Getenv("INTEROP_KILLABLE_PROGRAM"))
	}
	return env
}

// ForwarderName is its name in paths and in the registry.
const ForwarderName = "forwarder-1"

// Command gives a command and decodes what it answers into result, unless that is nil.
func (f *Forwarder) Command(command string, result any) error {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if _, err := io.WriteString(f.input, command+"\n"); err != nil {
		return fmt.Errorf("cannot request of the forwarder to %s: %w", command, err)
	}
	limit := time.AfterFunc(Patience, func() { _ = f.command.Process.Kill() })
	defer limit.Stop()
	if !f.output.Scan() {
		return fmt.Errorf("the forwarder's process ended at %s, or did not answer: see %s/forwarder.log", command, f.Folder)
	}
	var answer struct {
		Done   json.RawMessage
		Failed string
	}
	if err := json.Unmarshal(f.output.Bytes(), &answer); err != nil {
		return fmt.Errorf("cannot read the forwarder's answer to %s: %w", command, err)
	}
	if answer.Failed != "" {
		return fmt.Errorf("the forwarder failed to %s: %s", command, answer.Failed)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(answer.Done, result)
}

// Logged is how often it has logged the event, a forwarder that was killed included.
func (f *Forwarder) Logged(event string) int {
	text, _ := os.ReadFile(filepath.Join(f.Folder, "forwarder.log"))
	return strings.Count(string(text), fmt.Sprintf(`"event":%q`, event))
}

// Start returns when the manager knows it.
func (f *Forwarder) Start() error { return f.Command("start", nil) }

// Kill ends a killable one by SIGKILL; the card and what was made in the kernel stay.
func (f *Forwarder) Kill() error { return f.Command("kill", nil) }

// Stop ends it as SIGTERM does; the card and its connections stay.
func (f *Forwarder) Stop() error { return f.Command("stop", nil) }

// Count queries a figure: "connections", the "held" VFs, or the "live" bytes of its memory, which a killable one cannot report.
func (f *Forwarder) Count(of string) (int, error) {
	var count int
	err := f.Command(of, &count)
	return count, err
}

// Close ends the process and all that it made in the kernel.
func (f *Forwarder) Close() error {
	_ = f.input.Close()
	limit := time.AfterFunc(Patience, func() { _ = f.command.Process.Kill() })
	defer limit.Stop()
	return f.command.Wait()
}
