package provider

import (
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/booldefault"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/int64default"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
)

// The attributes that several resources have.

func nameAttribute(of string) schema.StringAttribute {
	return schema.StringAttribute{Required: true, Description: "The name of the " + of + ". Another name is another " + of + ".",
		Validators:    []validator.String{text{name}},
		PlanModifiers: []planmodifier.String{stringplanmodifier.RequiresReplace()}}
}

func idAttribute(of string) schema.StringAttribute {
	return schema.StringAttribute{Optional: true, Computed: true, Description: "The id of the " + of + ". Default: one is made.",
		Validators:    []validator.String{text{name}},
		PlanModifiers: []planmodifier.String{stringplanmodifier.RequiresReplaceIfConfigured(), stringplanmodifier.UseStateForUnknown()}}
}

func reasonAttribute() schema.StringAttribute {
	return schema.StringAttribute{Required: true, Description: "Why: for whoever reads it later, in the gateway's lists and its audit trail.",
		Validators: []validator.String{text{notEmpty}}}
}

func byAttribute() schema.StringAttribute {
	return schema.StringAttribute{Computed: true, Description: "Who made it or changed it last."}
}

func atAttribute() schema.StringAttribute {
	return schema.StringAttribute{Computed: true, Description: "When it was made or changed last."}
}

func flagAttribute(description string) schema.BoolAttribute {
	return schema.BoolAttribute{Optional: true, Computed: true, Default: booldefault.StaticBool(false), Description: description}
}

func bytesAttribute(description string) schema.Int64Attribute {
	return schema.Int64Attribute{Optional: true, Computed: true, Default: int64default.StaticInt64(0), Description: description,
		Validators: []validator.Int64{between{0, 1 << 50}}}
}

func setAttribute(of attr.Type, description string, checks ...validator.Set) schema.SetAttribute {
	return schema.SetAttribute{Optional: true, ElementType: of, Description: description, Validators: checks}
}

func optionalAttribute(description string, checks ...validator.String) schema.StringAttribute {
	return schema.StringAttribute{Optional: true, Description: description, Validators: checks}
}

func subjectAttributes() (class, host schema.StringAttribute) {
	return optionalAttribute("The class of hosts that it is for. Exactly one of class and host is set.", text{name}),
		optionalAttribute("The one host that it is for, by its name.", text{name})
}

// checkSubject holds a grant or an exemption to one subject.
func checkSubject(class, host types.String, diags *diag.Diagnostics) {
	if class.IsUnknown() || host.IsUnknown() {
		return
	}
	if class.IsNull() == host.IsNull() {
		diags.AddAttributeError(path.Root("class"), "It is for a class or for a host", "Set class, or host, and not both.")
	}
}
