package inspect

import (
	"errors"
	"net/http"

	"github.com/exitgate/exitgate"
)

var (
	errNoExchange = errors.New("the request carries no exchange")
	errNoRequest  = errors.New("the exchange's question has no request")
)

// exchange returns the exchange that a step works on. A request without one may not go on: nothing could record it.
func exchange(step string, req *http.Request) (*exitgate.Exchange, *exitgate.Request, error) {
	if req == nil {
		return nil, nil, &exitgate.Bug{Step: "inspect." + step, Err: errNoExchange}
	}
	x := exitgate.ExchangeOf(req.Context())
	switch {
	case x == nil || x.Flow == nil:
		return nil, nil, &exitgate.Bug{Step: "inspect." + step, Err: errNoExchange}
	case x.Flow.Question.HTTP == nil:
		return nil, nil, &exitgate.Bug{Step: "inspect." + step, Err: errNoRequest}
	}
	return x, x.Flow.Question.HTTP, nil
}

func malformed(format string, args ...any) error {
	return exitgate.NewRefusal(http.StatusBadRequest, exitgate.RuleMalformed, format, args...)
}
