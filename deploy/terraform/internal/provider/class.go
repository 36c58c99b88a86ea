package provider

import (
	"context"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringdefault"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/exitgate/exitgate/deploy/terraform/internal/api"
)

type class struct {
	Name        types.String `tfsdk:"name"`
	Description types.String `tfsdk:"description"`
	Audit       types.Bool   `tfsdk:"audit"`
	Reason      types.String `tfsdk:"reason"`
	By          types.String `tfsdk:"by"`
	At          types.String `tfsdk:"at"`
}

func newClass() resource.Resource {
	return &entry[class, api.Class]{
		noun: "class", collection: "classes", key: "name",
		schema: schema.Schema{
			Description: "A class of hosts: what access is granted to.",
			Attributes: map[string]schema.Attribute{
				"name": nameAttribute("class"),
				"description": schema.StringAttribute{Optional: true, Computed: true, Default: stringdefault.StaticString(""),
					Description: "What hosts are of it."},
				"audit":  flagAttribute("Carry what policy would refuse, and record that it would: to learn what a class needs."),
				"reason": reasonAttribute(), "by": byAttribute(), "at": atAttribute(),
			},
		},
		id:     func(m *class) string { return m.Name.ValueString() },
		reason: func(m *class) string { return m.Reason.ValueString() },
		origin: func(w *api.Class) api.Origin { return w.Origin },
		send: func(_ context.Context, m *class, _ *diag.Diagnostics) api.Class {
			return api.Class{Name: m.Name.ValueString(), Description: m.Description.ValueString(), Audit: m.Audit.ValueBool(), Reason: m.Reason.ValueString()}
		},
		fill: fillClass,
	}
}

func fillClass(_ context.Context, m *class, was *api.Class, now api.Class) (diags diag.Diagnostics) {
	keepString(&m.Name, field(was, func(w *api.Class) *string { return &w.Name }), now.Name)
	keepString(&m.Description, field(was, func(w *api.Class) *string { return &w.Description }), now.Description)
	keepBool(&m.Audit, field(was, func(w *api.Class) *bool { return &w.Audit }), now.Audit)
	keepString(&m.Reason, field(was, func(w *api.Class) *string { return &w.Reason }), now.Reason)
	fillOrigin(&m.By, &m.At, now.Origin)
	return diags
}

func fillOrigin(by, at *types.String, now api.Origin) {
	keepString(by, nil, now.By)
	keepTime(at, nil, now.At)
}
