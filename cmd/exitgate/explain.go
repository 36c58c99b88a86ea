package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/exitgate/exitgate"
	"github.com/exitgate/exitgate/web"
)

func explainCommand() *cobra.Command {
	var h web.Hypothesis
	var class, output, revision string
	c := &cobra.Command{
		Use:   "explain (FLOW | (--host NAME | --class NAME) [--method METHOD] URL)",
		Short: "Say why: the verdict, the rule with file and line, why other grants did not match",
		Long: `Asks the policy that is loaded now, either the question of a flow that was recorded, or of a request that has not
happened. A refused client is shown the id of its flow. With --revision it asks another policy: a revision that the gateway had
loaded, "recorded" for the one that the flow was judged under, or a policy directory.`,
		Example: `  exitgate explain 01k8zq2v7r3m5n9w4x6t8y0abc
  exitgate explain --class build --method POST https://packages.example.com/upload`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			h.Class = exitgate.Class(class)
			switch named := h.Host != "" || class != ""; {
			case named && h.Host != "" && class != "":
				return usage(c, fmt.Errorf("name the host or the class, not both"))
			case named:
				h.URL, h.Method = args[0], strings.ToUpper(h.Method)
			case strings.Contains(args[0], "://"):
				return usage(c, fmt.Errorf("say who would ask for the URL: --host NAME or --class NAME"))
			default:
				h.Flow, h.Method = args[0], ""
			}
			if revision != "" {
				return explainUnder(c, revision, h, output)
			}
			return printExplanation(c, h, output)
		},
	}
	c.Flags().StringVar(&h.Host, "host", "", "the host that would ask")
	c.Flags().StringVar(&class, "class", "", "the class of the host that would ask")
	c.Flags().StringVar(&h.Method, "method", "GET", "the method of the request")
	c.Flags().StringVar(&revision, "revision", "", "ask this revision, or directory, instead of what is loaded; recorded: the flow's own")
	c.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return c
}

func printExplanation(c *cobra.Command, h web.Hypothesis, output string) error {
	accept := map[string]string{"text": "text/plain", "json": "application/json"}[output]
	if accept == "" {
		return usage(c, fmt.Errorf("-o %q: it is text or json", output))
	}
	body, err := dial(c).open(c.Context(), http.MethodPost, "explain", h, accept)
	if err != nil {
		return err
	}
	defer body.Close()
	b, err := io.ReadAll(io.LimitReader(body, 4<<20))
	if err != nil {
		return fmt.Errorf("read the explanation: %w", err)
	}
	if output == "json" {
		_, err = c.OutOrStdout().Write(b)
		return err
	}
	for line := range strings.Lines(string(b)) {
		fmt.Fprintln(c.OutOrStdout(), plain(strings.TrimSuffix(line, "\n")))
	}
	return nil
}
