package provider

import (
	"context"
	"time"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/int64default"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/mapplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/exitgate/exitgate/deploy/terraform/internal/api"
)

type hostToken struct {
	ID       types.String `tfsdk:"id"`
	Class    types.String `tfsdk:"class"`
	Host     types.String `tfsdk:"host"`
	Networks types.Set    `tfsdk:"networks"`
	Uses     types.Int64  `tfsdk:"uses"`
	TTL      types.String `tfsdk:"ttl"`
	Until    types.String `tfsdk:"until"`
	Keepers  types.Map    `tfsdk:"keepers"`
	Reason   types.String `tfsdk:"reason"`
	Secret   types.String `tfsdk:"secret"`
	Used     types.Int64  `tfsdk:"used"`
	By       types.String `tfsdk:"by"`
	At       types.String `tfsdk:"at"`
}

// newHostToken makes the resource. Its secret is in the state, marked sensitive: what it is made for, the user data of a
// machine that boots later, has to have it after the apply, so that neither an ephemeral resource (which would also make a
// token for each plan) nor a write-only attribute (which carries secrets the other way) can give it. In exchange the token
// can be bound to one use, one name, a network and an hour.
func newHostToken() resource.Resource {
	replace := []planmodifier.String{stringplanmodifier.RequiresReplace()}
	return &entry[hostToken, api.HostToken]{
		noun: "host token", collection: "host-tokens", key: "id",
		schema: schema.Schema{
			Description: "A token with which hosts of a class enrol. Its secret is in the state.",
			Attributes: map[string]schema.Attribute{
				"id": idAttribute("token"),
				"class": schema.StringAttribute{Required: true, Description: "The class of the hosts that it enrols.",
					Validators: []validator.String{text{name}}, PlanModifiers: replace},
				"host": schema.StringAttribute{Optional: true, Description: "The one host that it enrols; left out: any name that is free.",
					Validators: []validator.String{text{name}}, PlanModifiers: replace},
				"networks": setAttribute(types.StringType, "Where it may be used from; left out: anywhere.", each{text{network}}),
				"uses": schema.Int64Attribute{Optional: true, Computed: true, Default: int64default.StaticInt64(1), Description: "How many hosts it enrols.",
					Validators: []validator.Int64{between{1, 100_000}}},
				"ttl": optionalAttribute("How long it is valid from when it is made or this is changed, such as 2h; instead of until. Default: a day.", text{span}),
				"until": schema.StringAttribute{Optional: true, Computed: true, Description: "When it ends (RFC 3339).",
					Validators: []validator.String{text{moment}}, PlanModifiers: []planmodifier.String{untilStays{}}},
				"keepers": schema.MapAttribute{Optional: true, ElementType: types.StringType,
					Description:   "Anything that, when it changes, makes a new token in place of this one.",
					PlanModifiers: []planmodifier.Map{mapplanmodifier.RequiresReplace()}},
				"reason": reasonAttribute(),
				"secret": schema.StringAttribute{Computed: true, Sensitive: true, PlanModifiers: []planmodifier.String{stringplanmodifier.UseStateForUnknown()},
					Description: "The token. After an import it is not known: gateways keep only a digest."},
				"used": schema.Int64Attribute{Computed: true, Description: "How often it was used."},
				"by":   byAttribute(), "at": atAttribute(),
			},
		},
		checks: func(m *hostToken, diags *diag.Diagnostics) {
			if !m.TTL.IsNull() && !m.Until.IsNull() {
				diags.AddAttributeError(path.Root("ttl"), "It ends once", "Set ttl, or until, and not both.")
			}
		},
		id:     func(m *hostToken) string { return m.ID.ValueString() },
		reason: func(m *hostToken) string { return m.Reason.ValueString() },
		origin: func(w *api.HostToken) api.Origin { return w.Origin },
		send:   sendHostToken,
		settle: func(w *api.HostToken) {
			if w.ID == "" {
				w.ID = api.NewID("t")
			}
		},
		fill: fillHostToken,
	}
}

func sendHostToken(ctx context.Context, m *hostToken, diags *diag.Diagnostics) api.HostToken {
	w := api.HostToken{
		ID: m.ID.ValueString(), Class: m.Class.ValueString(), Host: m.Host.ValueString(), Uses: m.Uses.ValueInt64(), Reason: m.Reason.ValueString(),
		Networks: listOf[string](ctx, m.Networks, diags), Until: timeOf(m.Until),
	}
	if d, err := parseSpan(m.TTL.ValueString()); err == nil && m.Until.IsUnknown() {
		w.Until = time.Now().Add(d)
	}
	return w
}

func fillHostToken(ctx context.Context, m *hostToken, was *api.HostToken, now api.HostToken) (diags diag.Diagnostics) {
	keepString(&m.ID, field(was, func(w *api.HostToken) *string { return &w.ID }), now.ID)
	keepString(&m.Class, field(was, func(w *api.HostToken) *string { return &w.Class }), now.Class)
	keepOptional(&m.Host, field(was, func(w *api.HostToken) *string { return &w.Host }), now.Host)
	keepSet(ctx, &m.Networks, types.StringType, field(was, func(w *api.HostToken) *[]string { return &w.Networks }), now.Networks, &diags)
	keepInt(&m.Uses, field(was, func(w *api.HostToken) *int64 { return &w.Uses }), now.Uses)
	keepTime(&m.Until, field(was, func(w *api.HostToken) *time.Time { return &w.Until }), now.Until)
	keepString(&m.Reason, field(was, func(w *api.HostToken) *string { return &w.Reason }), now.Reason)
	if m.Secret.IsUnknown() {
		m.Secret = types.StringNull()
	}
	if now.Secret != "" { // told once
		m.Secret = types.StringValue(now.Secret)
	}
	keepInt(&m.Used, nil, now.Used)
	fillOrigin(&m.By, &m.At, now.Origin)
	return diags
}

// untilStays keeps the end of a token that the configuration leaves out, unless its time span changes.
type untilStays struct{}

// Description implements [planmodifier.String].
func (untilStays) Description(context.Context) string { return "stays unless ttl changes" }

// MarkdownDescription implements [planmodifier.String].
func (untilStays) MarkdownDescription(context.Context) string { return "stays unless ttl changes" }

// PlanModifyString implements [planmodifier.String].
func (untilStays) PlanModifyString(ctx context.Context, req planmodifier.StringRequest, res *planmodifier.StringResponse) {
	if !req.PlanValue.IsUnknown() || req.StateValue.IsNull() {
		return
	}
	var planned, now types.String
	res.Diagnostics.Append(req.Plan.GetAttribute(ctx, path.Root("ttl"), &planned)...)
	res.Diagnostics.Append(req.State.GetAttribute(ctx, path.Root("ttl"), &now)...)
	if planned.Equal(now) || planned.IsNull() {
		res.PlanValue = req.StateValue
	}
}
