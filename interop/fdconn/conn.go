// Package fdconn passes open files between processes beneath TLS, on unix sockets, as NSM's peers do: nsm-protocol §6.
// A file is known by its inode alone; the bytes of the stream stay as they are. It knows nothing of gRPC or NSM.
package fdconn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// maxFiles in one write or read.
const maxFiles = 64

// Conn is a unix connection that can carry files both ways.
type Conn struct {
	*net.UnixConn
	writing  sync.Mutex
	outgoing []*os.File
	mutex    sync.Mutex
	arrived  map[string]*os.File
	waiting  map[string][]chan *os.File
	isClosed bool
}

// Wrap makes one; its caller reads and writes only through what this returns.
func Wrap(conn *net.UnixConn) *Conn {
	return &Conn{UnixConn: conn, arrived: map[string]*os.File{}, waiting: map[string][]chan *os.File{}}
}

// RemoteAddr is an Addr: so the handlers of a gRPC server find the connection.
func (c *Conn) RemoteAddr() net.Addr { return &Addr{Addr: c.UnixConn.RemoteAddr(), Conn: c} }

// Addr is the address of the peer, with the connection to it.
type Addr struct {
	net.Addr
	Conn *Conn
}

// Send has the file leave with the next bytes that are written. The file stays the caller's.
func (c *Conn) Send(file *os.File) error {
	duplicate, err := duplicate(file)
	if err != nil {
		return err
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	c.outgoing = append(c.outgoing, duplicate)
	return nil
}

// Write sends one byte with each waiting file, and then the rest.
func (c *Conn) Write(bytes []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	sent := 0
	for sent < len(bytes) && sent < maxFiles && len(c.outgoing) > 0 {
		file := c.outgoing[0]
		c.outgoing = c.outgoing[1:]
		_, _, err := c.WriteMsgUnix(bytes[sent:sent+1], unix.UnixRights(int(file.Fd())), nil)
		_ = file.Close()
		if err != nil {
			return sent, err
		}
		sent++
	}
	rest, err := c.UnixConn.Write(bytes[sent:])
	return sent + rest, err
}

// Read keeps the files that come with the bytes.
func (c *Conn) Read(bytes []byte) (int, error) {
	control := make([]byte, unix.CmsgSpace(maxFiles*4))
	count, controlCount, flags, _, err := c.ReadMsgUnix(bytes, control)
	if err != nil {
		return max(count, 0), err
	}
	if flags&unix.MSG_CTRUNC != 0 {
		return count, errors.New("files were lost: more arrived than there is room for")
	}
	messages, err := unix.ParseSocketControlMessage(control[:controlCount])
	if err != nil {
		return count, err
	}
	for _, message := range messages {
		descriptors, err := unix.ParseUnixRights(&message)
		if err != nil {
			continue // not files
		}
		for _, descriptor := range descriptors {
			c.keep(os.NewFile(uintptr(descriptor), "passed"))
		}
	}
	return count, nil
}

func (c *Conn) keep(file *os.File) {
	url := InodeURL(file)
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if _, isThere := c.arrived[url]; isThere || c.isClosed {
		_ = file.Close()
		return
	}
	c.arrived[url] = file
	for _, waiter := range c.waiting[url] {
		waiter <- file
	}
	delete(c.waiting, url)
}

// Receive waits for the file with this inode:// URL. The caller closes what it gets.
func (c *Conn) Receive(ctx context.Context, url string) (*os.File, error) {
	c.mutex.Lock()
	file := c.arrived[url]
	waiter := make(chan *os.File, 1)
	if file == nil {
		c.waiting[url] = append(c.waiting[url], waiter)
	}
	c.mutex.Unlock()
	if file == nil {
		select {
		case file = <-waiter:
		case <-ctx.Done():
			return nil, fmt.Errorf("no file arrived for %s: %w", url, ctx.Err())
		}
	}
	return duplicate(file)
}

// Close lets go of every file that is still kept.
func (c *Conn) Close() error {
	err := c.UnixConn.Close()
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.isClosed = true
	for url, file := range c.arrived {
		_ = file.Close()
		delete(c.arrived, url)
	}
	return err
}

func duplicate(file *os.File) (*os.File, error) {
	descriptor, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot duplicate %s: %w", file.Name(), err)
	}
	return os.NewFile(uintptr(descriptor), file.Name()), nil
}

// InodeURL names an open file as it is named between peers that pass it.
func InodeURL(file *os.File) string {
	var stat unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &stat); err != nil {
		panic(err) // an open file has one
	}
	return fmt.Sprintf("inode://%d/%d", stat.Dev, stat.Ino)
}

// OpenPath opens a file only to be passed on: a socket for example, which cannot be opened to read.
func OpenPath(path string) (*os.File, error) {
	descriptor, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", path, err)
	}
	return os.NewFile(uintptr(descriptor), path), nil
}
