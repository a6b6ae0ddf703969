package peer

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc"
	channelz "google.golang.org/grpc/channelz/grpc_channelz_v1"
	"google.golang.org/grpc/channelz/service"
	"google.golang.org/grpc/credentials/insecure"
)

// KeepAlives reads what grpc-go itself counts: the pings that it has sent on connections to keep them alive.
type KeepAlives struct {
	server *grpc.Server
	cc     *grpc.ClientConn
}

// CountKeepAlives counts those of links that are dialled later. They must all be over when it is stopped.
func CountKeepAlives(socket string) (*KeepAlives, error) {
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	server := grpc.NewServer(grpc.UnaryInterceptor(orNone))
	service.RegisterChannelzServiceToServer(server)
	go func() { _ = server.Serve(listener) }()
	cc, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	return &KeepAlives{server, cc}, err
}

// orNone answers with an error where grpc-go panics: it lists a socket while it still makes the transport that the socket's figures
// are read from (newHTTP2Client registers it before it has made what socketMetrics reads).
func orNone(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (answer any, err error) {
	defer func() {
		if what := recover(); what != nil {
			err = fmt.Errorf("cannot read the figures of a socket: %v", what)
		}
	}()
	return handler(ctx, request)
}

// Stop ends the counting.
func (k *KeepAlives) Stop() {
	_ = k.cc.Close()
	k.server.Stop()
}

// Sent is the sum over the sockets of all clients of this process.
func (k *KeepAlives) Sent(ctx context.Context) (int64, error) {
	client := channelz.NewChannelzClient(k.cc)
	top, err := client.GetTopChannels(ctx, &channelz.GetTopChannelsRequest{})
	if err != nil {
		return 0, err
	}
	var sent int64
	for _, channel := range top.Channel {
		for _, reference := range channel.SubchannelRef {
			sub, err := client.GetSubchannel(ctx, &channelz.GetSubchannelRequest{SubchannelId: reference.SubchannelId})
			if err != nil {
				continue // gone since, or not made yet
			}
			for _, reference := range sub.Subchannel.SocketRef {
				socket, err := client.GetSocket(ctx, &channelz.GetSocketRequest{SocketId: reference.SocketId})
				if err == nil {
					sent += socket.Socket.Data.KeepAlivesSent
				}
			}
		}
	}
	return sent, nil
}
