package exitgate

import (
	"context"
	"encoding/json"
	"testing"
	"time"
)

func TestZeroVerdictRefuses(t *testing.T) {
	var v Verdict
	if v.Action != Refuse {
		t.Fatal("the zero verdict does not refuse")
	}
	f := Flow{End: time.Now()}
	if f.Outcome() != OutcomeRefused {
		t.Errorf("an ended flow with the zero verdict is %s", f.Outcome())
	}
	if b, err := json.Marshal(Action(200)); err != nil || string(b) != `"refuse"` {
		t.Errorf("an action that does not exist is %s, %v", b, err)
	}
}

func TestSettleRunsEachOnce(t *testing.T) {
	x := &Exchange{Flow: &Flow{}}
	if got := ExchangeOf(WithExchange(context.Background(), x)); got != x || ExchangeOf(context.Background()) != nil {
		t.Fatal("the context does not carry the exchange")
	}
	order := ""
	x.OnSettle(func(*Flow) { order += "a" })
	x.OnSettle(func(*Flow) { order += "b" })
	x.Settle()
	x.Settle()
	if order != "ab" {
		t.Errorf("settled %q, want ab", order)
	}
}

func TestDestinationIP(t *testing.T) {
	for host, want := range map[string]bool{"192.0.2.1": true, "2001:db8::1": true, "::1": true, "fe80::1": true, "example.com": false, "1.example": false, "": false, "face.example": false} {
		if _, ok := (Destination{Host: host}).IP(); ok != want {
			t.Errorf("%q is an address: %v, want %v", host, ok, want)
		}
	}
	if s := (Destination{Host: "2001:db8::1", Port: 443}).String(); s != "[2001:db8::1]:443" {
		t.Error(s)
	}
}
