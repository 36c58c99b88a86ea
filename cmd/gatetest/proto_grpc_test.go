package gatetest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/exitgate/exitgate"
)

type str = wrapperspb.StringValue

// echoService has a call of each kind.
var echoService = grpc.ServiceDesc{
	ServiceName: "exit.Echo",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Unary", Handler: func(srv any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		in := new(str)
		if err := dec(in); err != nil {
			return nil, err
		}
		return srv.(*echoServer).unary(ctx, in)
	}}},
	Streams: []grpc.StreamDesc{
		{StreamName: "Server", ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
			in := new(str)
			if err := s.RecvMsg(in); err != nil {
				return err
			}
			for i := range 5 {
				if err := s.SendMsg(wrapperspb.String(fmt.Sprint(in.Value, i))); err != nil {
					return err
				}
			}
			s.SetTrailer(metadata.Pairs("x-count", "5"))
			return nil
		}},
		{StreamName: "Client", ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
			var all []string
			for {
				in := new(str)
				if err := s.RecvMsg(in); err == io.EOF {
					return s.SendMsg(wrapperspb.String(strings.Join(all, ",")))
				} else if err != nil {
					return err
				}
				all = append(all, in.Value)
			}
		}},
		{StreamName: "Bidi", ServerStreams: true, ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
			for {
				in := new(str)
				if err := s.RecvMsg(in); err == io.EOF {
					return status.Error(codes.DataLoss, "the last word, with bytes: é %")
				} else if err != nil {
					return err
				}
				if err := s.SendMsg(in); err != nil {
					return err
				}
			}
		}},
	},
}

type echoServer struct {
	waits chan bool  // a call to wait came
	ended chan error // how it ended
}

func (e *echoServer) unary(ctx context.Context, in *str) (*str, error) {
	switch in.Value {
	case "wait":
		e.waits <- true
		<-ctx.Done()
		e.ended <- ctx.Err()
		return nil, ctx.Err()
	case "fail":
		return nil, status.Error(codes.FailedPrecondition, "as asked")
	case "metadata":
		md, _ := metadata.FromIncomingContext(ctx)
		return wrapperspb.String(fmt.Sprintf("%d %q %q", len(strings.Join(md["x-big"], "")), md["x-bin-bin"], md["te"])), nil
	}
	return in, nil
}

// grpcOrigin serves echoService as grpc.example.com.
func (g *Gate) grpcOrigin() *echoServer {
	g.T.Helper()
	e := &echoServer{make(chan bool, 1), make(chan error, 1)}
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{GetCertificate: g.Origins.forHello, NextProtos: []string{"h2"}})), grpc.MaxHeaderListSize(1<<20))
	s.RegisterService(&echoService, e)
	l := must[net.Listener](g.T)(net.Listen("tcp", "127.0.0.1:0"))
	g.Resolver.Add("grpc.example.com", 443, l.Addr().String())
	done := make(chan bool)
	go func() { defer close(done); s.Serve(l) }()
	g.T.Cleanup(func() { s.Stop(); <-done })
	return e
}

// grpcClient is a fresh connection through the gate.
func (g *Gate) grpcClient(t testing.TB) *grpc.ClientConn {
	t.Helper()
	c := must[*grpc.ClientConn](t)(grpc.NewClient("passthrough:///grpc.example.com:443",
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: g.CA.Pool()})),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return g.opened("grpc.example.com:443"), nil })))
	t.Cleanup(func() { c.Close() })
	return c
}

func unary(ctx context.Context, c *grpc.ClientConn, in string, o ...grpc.CallOption) (string, error) {
	out := new(str)
	err := c.Invoke(ctx, "/exit.Echo/Unary", wrapperspb.String(in), out, o...)
	return out.Value, err
}

func TestGRPCKinds(t *testing.T) {
	g := New(t)
	g.grpcOrigin()
	c, ctx := g.grpcClient(t), bounded(t)
	if s, err := unary(ctx, c, "hello"); s != "hello" || err != nil {
		t.Errorf("unary: %q, %v", s, err)
	}
	if s, err := unary(ctx, c, ""); s != "" || err != nil {
		t.Errorf("unary, message of no bytes: %q, %v", s, err)
	}
	if _, err := unary(ctx, c, "fail"); status.Code(err) != codes.FailedPrecondition || status.Convert(err).Message() != "as asked" {
		t.Errorf("unary that fails: %v", err)
	}
	s := must[grpc.ClientStream](t)(c.NewStream(ctx, &echoService.Streams[0], "/exit.Echo/Server"))
	s.SendMsg(wrapperspb.String("n"))
	s.CloseSend()
	var got []string
	out := new(str)
	for s.RecvMsg(out) == nil {
		got = append(got, out.Value)
	}
	if strings.Join(got, " ") != "n0 n1 n2 n3 n4" || s.Trailer()["x-count"] == nil {
		t.Errorf("server stream: %v, trailer %v", got, s.Trailer())
	}
	s = must[grpc.ClientStream](t)(c.NewStream(ctx, &echoService.Streams[1], "/exit.Echo/Client"))
	for i := range 5 {
		s.SendMsg(wrapperspb.String(fmt.Sprint(i)))
	}
	s.CloseSend()
	if err := s.RecvMsg(out); err != nil || out.Value != "0,1,2,3,4" {
		t.Errorf("client stream: %q, %v", out.Value, err)
	}
	s = must[grpc.ClientStream](t)(c.NewStream(ctx, &echoService.Streams[2], "/exit.Echo/Bidi"))
	for i := range 5 {
		s.SendMsg(wrapperspb.String(fmt.Sprint(i)))
		if err := s.RecvMsg(out); err != nil || out.Value != fmt.Sprint(i) {
			t.Fatalf("bidi %d: %q, %v", i, out.Value, err)
		}
	}
	s.CloseSend()
	if err := s.RecvMsg(out); status.Code(err) != codes.DataLoss || status.Convert(err).Message() != "the last word, with bytes: é %" {
		t.Errorf("bidi, end: %v", err)
	}
	for _, f := range g.Recorder.Wait(6) {
		if f.Outcome() != exitgate.OutcomeAllowed || f.Upstream.Proto != "HTTP/2.0" || f.Question.HTTP.Method != "POST" || f.ResponseBody == exitgate.BodyCut {
			t.Errorf("flow %s: outcome %s, upstream %+v, bodies %q %q, fault %v", f.Question.HTTP.URL, f.Outcome(), f.Upstream, f.RequestBody, f.ResponseBody, f.Fault)
		}
	}
}

// The first thing that a fresh client sends is a small POST; relays that race SETTINGS fail it.
func TestGRPCFreshClients(t *testing.T) {
	g := New(t)
	g.grpcOrigin()
	for i := range 50 {
		c := g.grpcClient(t)
		if s, err := unary(bounded(t), c, "hello"); s != "hello" || err != nil {
			t.Fatalf("client %d: %q, %v", i, s, err)
		}
		c.Close()
	}
}

func TestGRPCDeadlineAndCancel(t *testing.T) {
	g := New(t)
	e := g.grpcOrigin()
	c := g.grpcClient(t)
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if _, err := unary(ctx, c, "wait"); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("past its deadline: %v", err)
	}
	within(t, e.waits, "the call to come")
	within(t, e.ended, "the server to see the deadline")
	ctx, cancel = context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { _, err := unary(ctx, c, "wait"); done <- err }()
	within(t, e.waits, "the call to come")
	cancel()
	if err := within(t, done, "the call to end"); status.Code(err) != codes.Canceled {
		t.Errorf("cancelled: %v", err)
	}
	if err := within(t, e.ended, "the server to see the cancellation"); !errors.Is(err, context.Canceled) {
		t.Errorf("the server saw %v", err)
	}
	fault(t, g.Recorder.Last(2), "client", "client_gone")
}

func TestGRPCMetadata(t *testing.T) {
	g := New(t)
	g.grpcOrigin()
	ctx := metadata.AppendToOutgoingContext(bounded(t), "x-big", strings.Repeat("v", 40<<10), "x-bin-bin", "\x00\x01\xff")
	if s, err := unary(ctx, g.grpcClient(t), "metadata"); err != nil || s != `40960 ["\x00\x01\xff"] []` {
		t.Errorf("got %q, %v", s, err)
	}
}

func TestGRPCRefused(t *testing.T) {
	g := New(t)
	g.Decide(func(*exitgate.Question) exitgate.Verdict {
		return exitgate.Verdict{Rule: "no-grant", Reason: "class app has no grant for it"}
	})
	_, err := unary(bounded(t), g.grpcClient(t), "hello")
	if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "class app has no grant for it") {
		t.Errorf("a refused call ended with %v", err)
	}
	if f := g.Recorder.Last(1); f.Outcome() != exitgate.OutcomeRefused {
		t.Errorf("flow: %s", f.Outcome())
	}
}
