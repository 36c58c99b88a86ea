package provider

import (
	"context"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/exitgate/exitgate/deploy/terraform/internal/api"
)

type host struct {
	Name      types.String `tfsdk:"name"`
	Class     types.String `tfsdk:"class"`
	Addresses types.Set    `tfsdk:"addresses"`
	Networks  types.Set    `tfsdk:"networks"`
	Disabled  types.Bool   `tfsdk:"disabled"`
	Reason    types.String `tfsdk:"reason"`
	By        types.String `tfsdk:"by"`
	At        types.String `tfsdk:"at"`
}

func newHost() resource.Resource {
	return &entry[host, api.Host]{
		noun: "host", collection: "hosts", key: "name",
		schema: schema.Schema{
			Description: "A host that the gateway knows, by its addresses or by the identity that it gets when it enrols.",
			Attributes: map[string]schema.Attribute{
				"name":  nameAttribute("host"),
				"class": schema.StringAttribute{Required: true, Description: "Its class: what it was provisioned as.", Validators: []validator.String{text{name}}},
				"addresses": schema.SetAttribute{Optional: true, Computed: true, ElementType: types.StringType, Validators: []validator.Set{each{text{network}}},
					Description: "The addresses and ranges (CIDR) that its connections come from. Left out: those that the host registers itself, which Terraform then leaves alone. [] for none."},
				"networks": setAttribute(types.StringType, "What bounds the addresses that the host registers itself; left out: any single address.", each{text{network}}),
				"disabled": flagAttribute("Refuse it, whatever is granted, and do not renew its identity."),
				"reason":   reasonAttribute(), "by": byAttribute(), "at": atAttribute(),
			},
		},
		id:     func(m *host) string { return m.Name.ValueString() },
		reason: func(m *host) string { return m.Reason.ValueString() },
		origin: func(w *api.Host) api.Origin { return w.Origin },
		send: func(ctx context.Context, m *host, diags *diag.Diagnostics) api.Host {
			return api.Host{
				Name: m.Name.ValueString(), Class: m.Class.ValueString(), Disabled: m.Disabled.ValueBool(), Reason: m.Reason.ValueString(),
				Addresses: listOf[string](ctx, m.Addresses, diags), Networks: listOf[string](ctx, m.Networks, diags),
			}
		},
		merge: func(config *host, w *api.Host, now api.Host) {
			if config.Addresses.IsNull() {
				w.Addresses = now.Addresses // the host's own
			}
		},
		fill: fillHost,
	}
}

func fillHost(ctx context.Context, m *host, was *api.Host, now api.Host) (diags diag.Diagnostics) {
	keepString(&m.Name, field(was, func(w *api.Host) *string { return &w.Name }), now.Name)
	keepString(&m.Class, field(was, func(w *api.Host) *string { return &w.Class }), now.Class)
	keepSet(ctx, &m.Addresses, types.StringType, field(was, func(w *api.Host) *[]string { return &w.Addresses }), now.Addresses, &diags)
	if m.Addresses.IsNull() {
		m.Addresses = types.SetValueMust(types.StringType, nil) // none, as it is said
	}
	keepSet(ctx, &m.Networks, types.StringType, field(was, func(w *api.Host) *[]string { return &w.Networks }), now.Networks, &diags)
	keepBool(&m.Disabled, field(was, func(w *api.Host) *bool { return &w.Disabled }), now.Disabled)
	if m.Reason.IsNull() || now.By != "host:"+now.Name { // a host that enrols says so in the reason
		keepString(&m.Reason, field(was, func(w *api.Host) *string { return &w.Reason }), now.Reason)
	}
	fillOrigin(&m.By, &m.At, now.Origin)
	return diags
}
