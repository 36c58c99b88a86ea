package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate/ca/authority"
	"github.com/exitgate/exitgate/web"
)

// identityAPI is the authority of hosts' identities as the API takes it.
type identityAPI struct {
	a       *authority.Authority
	changed func() // has the engine ask again who hosts are
}

// State implements web.IdentityCA.
func (i identityAPI) State() web.IdentityState {
	s := i.a.State()
	out := web.IdentityState{IssuerEnds: s.IssuerNotAfter, Rotating: s.Rotating, Since: s.RotatingSince, FinishAfter: s.FinishAfter}
	for _, r := range s.Roots {
		out.Roots = append(out.Roots, web.IdentityRoot(r))
	}
	return out
}

// Rotate implements web.IdentityCA.
func (i identityAPI) Rotate(ctx context.Context, r web.IdentityRotation) (err error) {
	switch r.Step {
	case "root":
		err = i.a.Rotate(ctx, r.Key)
	case "issuer":
		err = i.a.RotateIssuer(ctx)
	default:
		err = i.a.Finish(ctx, r.Force)
	}
	i.changed()
	if err != nil {
		return web.Conflict(err)
	}
	return nil
}

// Revoke implements web.IdentityCA.
func (i identityAPI) Revoke(ctx context.Context, serial, reason string) error {
	err := i.a.Revoke(ctx, serial, reason)
	i.changed()
	if err != nil {
		return web.Conflict(err)
	}
	return nil
}

func caIdentityCommand() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use: "identity", Short: "Look at the authority of hosts' identities, rotate its root, and take identities back",
		Long: `Hosts that enrol get an identity from an authority with a root of its own, which only the gateway trusts for hosts and
which hosts trust for the gateway. Its root is replaced in two steps: "rotate --root" puts the next root in force beside the
old one, and both are trusted; "rotate --finish", when every identity under the old root was renewed or has ended, ends it.
Hosts learn of the next root when they renew.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var s web.IdentityState
			if err := dial(c).call(c.Context(), http.MethodGet, "identity", nil, &s); err != nil {
				return err
			}
			return printIdentity(c, s, output)
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	c.AddCommand(caIdentityRotateCommand(), caIdentityRevokeCommand())
	return c
}

func caIdentityRotateCommand() *cobra.Command {
	var r web.IdentityRotation
	step := map[string]*bool{}
	c := &cobra.Command{
		Use:     "rotate (--root|--issuer|--finish) --reason TEXT",
		Short:   "Replace the identity root, step by step, or its issuer",
		Example: `  exitgate ca identity rotate --root --reason "ends in spring"`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			for name, set := range step {
				if *set && r.Step != "" {
					return usage(c, fmt.Errorf("--%s and --%s are two steps: say one", r.Step, name))
				} else if *set {
					r.Step = name
				}
			}
			if r.Step == "" {
				return usage(c, fmt.Errorf("say which step: --root, --issuer or --finish"))
			}
			if err := checkReason(r.Reason); err != nil {
				return usage(c, err)
			}
			var s web.IdentityState
			if err := dial(c).call(c.Context(), http.MethodPost, "identity/rotate", r, &s); err != nil {
				return err
			}
			return printIdentity(c, s, "text")
		},
	}
	f := c.Flags()
	for name, help := range map[string]string{"root": "put the next root in force; the old one stays trusted", "issuer": "make a new issuer under the same root", "finish": "no longer trust the old root"} {
		step[name] = f.Bool(name, false, help)
	}
	f.StringVar(&r.Key, "key", "", "with --root: URI of the next root's key (default: as identity.root_key says)")
	f.BoolVar(&r.Force, "force", false, "with --finish: also while hosts may not know the next root")
	f.StringVar(&r.Reason, "reason", "", "why (required)")
	return c
}

func caIdentityRevokeCommand() *cobra.Command {
	var in web.IdentityRevocation
	c := &cobra.Command{
		Use: "revoke SERIAL --reason TEXT", Short: "Take one identity back; exitgate host disable keeps a host out whatever it has",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			in.Serial = args[0]
			if err := checkReason(in.Reason); err != nil {
				return usage(c, err)
			}
			if err := dial(c).call(c.Context(), http.MethodPost, "identity/revoke", in, nil); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "identity %s is revoked\n", plain(in.Serial))
			return nil
		},
	}
	c.Flags().StringVar(&in.Reason, "reason", "", "why (required)")
	return c
}

func printIdentity(c *cobra.Command, s web.IdentityState, output string) error {
	w := c.OutOrStdout()
	if done, err := asJSON(c, output, s); done {
		return err
	}
	rows := [][]string{{"phase", "steady: one root"}}
	if s.Rotating {
		rows[0][1] = fmt.Sprintf("rotating since %s: both roots are trusted; finishing it cuts off nobody from %s", untilText(s.Since), untilText(s.FinishAfter))
	}
	for _, r := range s.Roots {
		role := map[bool]string{true: "root", false: "old root"}[r.InForce]
		rows = append(rows, []string{role, plain(r.Subject) + ", ends " + untilText(r.NotAfter)}, []string{"", "SHA-256 " + r.Fingerprint})
		if r.KeyAway != "" {
			rows = append(rows, []string{"", "its key is away: " + plain(r.KeyAway)})
		}
	}
	rows = append(rows, []string{"issuer", "ends " + untilText(s.IssuerEnds)})
	st := styleFor(w)
	columns(w, rows, func(_, column int, text string) string {
		if column == 0 {
			return st.dim(text)
		}
		return text
	})
	return nil
}
