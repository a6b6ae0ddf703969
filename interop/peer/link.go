package peer

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/url"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"interop/fdconn"
	"interop/identity"
)

// Link is a client's gRPC connection, with grpc-go's defaults, that carries files.
type Link struct {
	*grpc.ClientConn
	mutex     sync.Mutex
	conn      *fdconn.Conn
	isDropped bool
	dials     int
}

// Dial opens one to a unix:// or tcp:// URL.
func Dial(actor *identity.Actor, target string, lifetime time.Duration, more ...grpc.DialOption) (*Link, error) {
	return DialAs(actor, actor, target, lifetime, more...)
}

// DialAs shows the certificate of one actor and the tokens of another.
func DialAs(actor, signer *identity.Actor, target string, lifetime time.Duration, more ...grpc.DialOption) (*Link, error) {
	parsed, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	link := &Link{}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(actor.ClientTLS())),
		grpc.WithPerRPCCredentials(identity.PerCall{Actor: signer, Lifetime: lifetime}),
	}
	address := parsed.Host
	if parsed.Scheme == "unix" {
		address = "passthrough:///" + parsed.Path
		options = append(options, grpc.WithContextDialer(link.dial))
	}
	link.ClientConn, err = grpc.NewClient(address, append(options, more...)...)
	return link, err
}

func (l *Link) dial(ctx context.Context, path string) (net.Conn, error) {
	conn, err := fdconn.Dial(ctx, path)
	if err != nil {
		return nil, err
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if l.isDropped {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	l.conn = conn
	l.dials++
	return conn, nil
}

// Dials is how many connections it has had.
func (l *Link) Dials() int {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.dials
}

// Ready returns when it is connected.
func (l *Link) Ready(ctx context.Context) error {
	l.Connect()
	for state := l.GetState(); state != connectivity.Ready; state = l.GetState() {
		if l.wasDropped() {
			return status.Error(codes.Unavailable, "the link was dropped before it was connected")
		}
		if !l.WaitForStateChange(ctx, state) {
			return fmt.Errorf("not connected (%s): %w", state, ctx.Err())
		}
		l.Connect()
	}
	return nil
}

func (l *Link) wasDropped() bool {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.isDropped
}

// Send has the file leave with the next call.
func (l *Link) Send(ctx context.Context, file *os.File) error {
	if err := l.Ready(ctx); err != nil {
		return err
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return l.conn.Send(file)
}

// Drop breaks the connection without a word, as a process that is killed does. It does not come back: gRPC would send a call
// that had not left yet over a new connection, and the file that was to leave with it was lost with the old one.
func (l *Link) Drop() {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.isDropped = true
	if l.conn != nil {
		_ = l.conn.Close()
	}
}

func newID() string { return rand.Text() }
