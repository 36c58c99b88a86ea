package provider

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

// What can be told of a configuration before the gateway is asked. Each check takes all that the gateway takes.

// text checks a string.
type text struct{ check func(string) error }

// Description implements [validator.String].
func (text) Description(context.Context) string { return "its form" }

// MarkdownDescription implements [validator.String].
func (text) MarkdownDescription(context.Context) string { return "its form" }

// ValidateString implements [validator.String].
func (t text) ValidateString(_ context.Context, req validator.StringRequest, res *validator.StringResponse) {
	if req.ConfigValue.IsNull() || req.ConfigValue.IsUnknown() {
		return
	}
	if err := t.check(req.ConfigValue.ValueString()); err != nil {
		res.Diagnostics.AddAttributeError(req.Path, "This cannot be", err.Error())
	}
}

// each checks the strings of a set.
type each struct{ text }

// ValidateSet implements [validator.Set].
func (e each) ValidateSet(_ context.Context, req validator.SetRequest, res *validator.SetResponse) {
	for _, v := range req.ConfigValue.Elements() {
		s, ok := v.(types.String)
		if !ok || s.IsUnknown() {
			continue
		}
		err := errors.New("one of them is null")
		if !s.IsNull() {
			err = e.check(s.ValueString())
		}
		if err != nil {
			res.Diagnostics.AddAttributeError(req.Path, "This cannot be", err.Error())
		}
	}
}

// between bounds a number.
type between struct{ least, most int64 }

// Description implements [validator.Int64].
func (b between) Description(context.Context) string {
	return fmt.Sprintf("%d to %d", b.least, b.most)
}

// MarkdownDescription implements [validator.Int64].
func (b between) MarkdownDescription(ctx context.Context) string { return b.Description(ctx) }

// ValidateInt64 implements [validator.Int64].
func (b between) ValidateInt64(ctx context.Context, req validator.Int64Request, res *validator.Int64Response) {
	if v := req.ConfigValue; !v.IsNull() && !v.IsUnknown() && (v.ValueInt64() < b.least || v.ValueInt64() > b.most) {
		res.Diagnostics.AddAttributeError(req.Path, "This cannot be", fmt.Sprintf("%d: it is a number from %s", v.ValueInt64(), b.Description(ctx)))
	}
}

// ports bounds the numbers of a set.
type ports struct{ between }

// ValidateSet implements [validator.Set].
func (p ports) ValidateSet(_ context.Context, req validator.SetRequest, res *validator.SetResponse) {
	for _, v := range req.ConfigValue.Elements() {
		n, ok := v.(types.Int64)
		if ok && !n.IsUnknown() && (n.ValueInt64() < 1 || n.ValueInt64() > 65535) {
			res.Diagnostics.AddAttributeError(req.Path, "This cannot be", fmt.Sprintf("%d: a port is 1 to 65535", n.ValueInt64()))
		}
	}
}

func notEmpty(s string) error {
	if strings.TrimSpace(s) == "" {
		return errors.New("it is empty")
	}
	return nil
}

func name(s string) error {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	if s == "" || len(s) > 64 || strings.Trim(s, letters+".-_") != "" || !strings.Contains(letters, s[:1]) {
		return fmt.Errorf("%.80q: it is 1 to 64 letters, digits, dots, dashes and underscores, and begins with a letter or a digit", s)
	}
	return nil
}

func network(s string) error {
	_, perr := netip.ParsePrefix(s)
	if _, aerr := netip.ParseAddr(s); perr != nil && aerr != nil {
		return fmt.Errorf("%.60q is neither an address (192.0.2.1) nor a range (192.0.2.0/24)", s)
	}
	return nil
}

func moment(s string) error {
	if _, err := time.Parse(time.RFC3339, s); err != nil {
		return fmt.Errorf("%.60q: it is a time as in RFC 3339, such as 2030-01-31T00:00:00Z", s)
	}
	return nil
}

func span(s string) error {
	_, err := parseSpan(s)
	return err
}

// parseSpan reads a time span as the gateway writes them: "8h", "30d", "1d12h".
func parseSpan(s string) (time.Duration, error) {
	wrong := fmt.Errorf("%.60q: it is a time span such as 30m, 8h or 30d", s)
	days, rest, ok := strings.Cut(s, "d")
	if !ok {
		days, rest = "0", s
	}
	n, err := strconv.ParseUint(days, 10, 16)
	if err != nil {
		return 0, wrong
	}
	d := time.Duration(n) * 24 * time.Hour
	if rest == "" && ok {
		return d, nil
	}
	more, err := time.ParseDuration(rest)
	if err != nil || more < 0 {
		return 0, wrong
	}
	return d + more, nil
}
