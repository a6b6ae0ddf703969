package node

import (
	"fmt"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"interop/fdconn"
)

// Netns is a pod as far as its network goes.
type Netns struct{ File *os.File }

// NewNetns makes an empty one.
func NewNetns() (*Netns, error) {
	type made struct {
		netns *Netns
		err   error
	}
	result := make(chan made, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its namespace
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			result <- made{nil, fmt.Errorf("cannot make a network namespace: %w", err)}
			return
		}
		file, err := os.Open("/proc/thread-self/ns/net")
		result <- made{&Netns{file}, err}
	}()
	done := <-result
	return done.netns, done.err
}

// Inode is the URL of the namespace on the wire; nsm-protocol §6.4.
func (n *Netns) Inode() string { return fdconn.InodeURL(n.File) }

// Path is a name for it that this process can open.
func (n *Netns) Path() string { return fmt.Sprintf("/proc/self/fd/%d", n.File.Fd()) }

// Close lets go of it.
func (n *Netns) Close() { _ = n.File.Close() }

// Link is a network device as the pod sees it; undefined Name where there is none.
type Link struct {
	Name      string
	MAC       string
	MTU       int
	IsUp      bool
	Addresses []string
}

// Link finds a device in the namespace.
func (n *Netns) Link(name string) (Link, error) {
	var link Link
	err := n.inside(func() error {
		device, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		link = Link{device.Name, device.HardwareAddr.String(), device.MTU, device.Flags&net.FlagUp != 0, nil}
		addresses, err := device.Addrs()
		for _, address := range addresses {
			if ip, ok := address.(*net.IPNet); ok && !ip.IP.IsLinkLocalUnicast() {
				link.Addresses = append(link.Addresses, address.String())
			}
		}
		return err
	})
	return link, err
}

// Links are the names of all devices but the loopback.
func (n *Netns) Links() ([]string, error) {
	var names []string
	err := n.inside(func() error {
		devices, err := net.Interfaces()
		for _, device := range devices {
			if device.Flags&net.FlagLoopback == 0 {
				names = append(names, device.Name)
			}
		}
		return err
	})
	return names, err
}

func (n *Netns) inside(read func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is not to be used again
		if err := unix.Setns(int(n.File.Fd()), unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("cannot enter the namespace: %w", err)
			return
		}
		result <- read()
	}()
	return <-result
}
