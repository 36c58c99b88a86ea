package exitgate

import "context"

// An Exchange carries one flow through the pipeline. Each step of the pipeline is a modifier that gets an
// *http.Request or *http.Response; it finds its exchange with [ExchangeOf] on the request's context and reads
// or completes the flow. One goroutine at a time touches an exchange; what a step counts on other goroutines
// (a body that the upstream connection reads) it keeps to itself until settled.
type Exchange struct {
	Flow   *Flow
	settle []func(*Flow)
}

type exchangeKey struct{}

// WithExchange returns a context that carries x.
func WithExchange(ctx context.Context, x *Exchange) context.Context {
	return context.WithValue(ctx, exchangeKey{}, x)
}

// ExchangeOf returns the exchange that ctx carries, or nil.
func ExchangeOf(ctx context.Context) *Exchange {
	x, _ := ctx.Value(exchangeKey{}).(*Exchange)
	return x
}

// OnSettle registers f to be called once, just before the flow is ended, on the goroutine that ends it: the
// place where a meter writes its counts into the flow. f must return at once and must stop the meter, so that
// nothing that was begun for the flow writes to it afterwards.
func (x *Exchange) OnSettle(f func(*Flow)) { x.settle = append(x.settle, f) }

// Settle calls what OnSettle registered, in order, once.
func (x *Exchange) Settle() {
	s := x.settle
	x.settle = nil
	for _, f := range s {
		f(x.Flow)
	}
}
