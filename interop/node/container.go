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

	"golang.org/x/sys/unix"
)

// containerVariable is set for the process of a container: the program of the tests, started again.
const containerVariable = "INTEROP_CONTAINER"

// enter puts the process at the root of its cgroup namespace before it makes the namespace.
const enter = `echo $$ > "$0/cgroup.procs" && exec unshare --cgroup "$@"`

// Container is a process in a cgroup of its own that makes device nodes and opens them, as NSM's client and the application
// behind it do: sriov-behaviour §7.2.
type Container struct {
	command *exec.Cmd
	input   io.WriteCloser
	output  *bufio.Scanner
}

type containerQuery struct {
	Do, Path     string
	Major, Minor uint32
}

type containerAnswer struct {
	Value string
	Errno string
}

// StartContainer starts one of the pod with this UID. The program must begin with RunContainer.
func (c *Cgroups) StartContainer(uid, name string) (*Container, error) {
	cgroup, err := c.container(uid, name)
	if err != nil {
		return nil, err
	}
	command := exec.Command("sh", "-c", enter, c.Path, "/proc/self/exe")
	if command.Args[4], err = os.Executable(); err != nil {
		return nil, err
	}
	command.Env = append(os.Environ(), containerVariable+"=1")
	command.Stderr = os.Stderr
	input, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	output, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	container := &Container{command, input, bufio.NewScanner(output)}
	if _, err := container.query(containerQuery{Do: "cgroup"}); err != nil { // it runs, and is in the namespace
		return nil, err
	}
	pid := fmt.Sprint(command.Process.Pid)
	return container, os.WriteFile(cgroup+"/cgroup.procs", []byte(pid), 0)
}

// CgroupDir is the parameter that its client sends.
func (c *Container) CgroupDir() (string, error) {
	answer, err := c.query(containerQuery{Do: "cgroup"})
	return answer.Value, err
}

// MakeNode makes a character device whose mode lets every user open it.
func (c *Container) MakeNode(path string, major, minor uint32) error {
	answer, err := c.query(containerQuery{"node", path, major, minor})
	if err == nil && answer.Errno != "" {
		err = fmt.Errorf("cannot make %s: %s", path, answer.Errno)
	}
	return err
}

// Open opens a node for reading and writing and keeps it open; "" or the errno's name.
func (c *Container) Open(path string) (string, error) {
	answer, err := c.query(containerQuery{Do: "open", Path: path})
	return answer.Errno, err
}

// Release closes what Open has opened.
func (c *Container) Release(path string) error {
	_, err := c.query(containerQuery{Do: "close", Path: path})
	return err
}

// Stop ends it.
func (c *Container) Stop() {
	_ = c.input.Close()
	_ = c.command.Wait()
}

func (c *Container) query(what containerQuery) (containerAnswer, error) {
	var answer containerAnswer
	if err := json.NewEncoder(c.input).Encode(what); err != nil {
		return answer, fmt.Errorf("cannot query the container's process: %w", err)
	}
	if !c.output.Scan() {
		return answer, errors.New("the container's process has ended")
	}
	return answer, json.Unmarshal(c.output.Bytes(), &answer)
}

// RunContainer is the whole life of such a process; it returns at once in any other.
func RunContainer() {
	if os.Getenv(containerVariable) == "" {
		return
	}
	opened := map[string]*os.File{}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var what containerQuery
		answer := containerAnswer{}
		err := json.Unmarshal(lines.Bytes(), &what)
		switch what.Do {
		case "cgroup":
			answer.Value, err = cgroupDir()
		case "node":
			_ = os.MkdirAll(filepath.Dir(what.Path), 0o755)
			err = unix.Mknod(what.Path, unix.S_IFCHR|0o666, int(unix.Mkdev(what.Major, what.Minor)))
		case "open":
			opened[what.Path], err = os.OpenFile(what.Path, os.O_RDWR, 0)
		case "close":
			err = opened[what.Path].Close()
		}
		if errno := unix.Errno(0); errors.As(err, &errno) {
			answer.Errno = unix.ErrnoName(errno)
		} else if err != nil {
			answer.Errno = err.Error()
		}
		_ = json.NewEncoder(os.Stdout).Encode(answer)
	}
	os.Exit(0)
}
