// Program terraform-provider-exitgate is the Terraform provider of exitgate. It does nothing on its own: Terraform
// starts it and speaks to it. Internal/provider says what it promises, and README.md how it is used.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/hashicorp/terraform-plugin-framework/providerserver"

	"github.com/exitgate/exitgate/deploy/terraform/internal/provider"
)

// version is set by the linker.
var version = "devel"

func main() {
	debug := flag.Bool("debug", false, "wait for a debugger, and print how Terraform reaches this process")
	flag.Parse()
	err := providerserver.Serve(context.Background(), provider.New(version), providerserver.ServeOpts{Address: provider.Address, Debug: *debug})
	if err != nil {
		fmt.Fprintln(os.Stderr, "terraform-provider-exitgate:", err)
		os.Exit(1)
	}
}
