package fdconn

import (
	"context"
	"net"
)

// Listener accepts connections that carry files.
type Listener struct{ net.Listener }

// Listen on a unix socket at the path.
func Listen(path string) (*Listener, error) {
	listener, err := net.Listen("unix", path)
	return &Listener{listener}, err
}

// Accept wraps what comes.
func (l *Listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return Wrap(conn.(*net.UnixConn)), nil
}

// Dial connects to the unix socket at the path.
func Dial(ctx context.Context, path string) (*Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	return Wrap(conn.(*net.UnixConn)), nil
}
