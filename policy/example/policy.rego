# Rules beyond lists. They are Rego (https://www.openpolicyagent.org/docs/policy-language), and stand beside the
# shipped policy, which reads the lists. "exitgate policy check" and "exitgate policy test" try this directory before
# the gateway loads it.
#
# What a rule can look at is called input: its fields are those of a flow's question, with input.dest.keys (the name,
# then "*.parent" of each parent) and input.http.prefixes (/, /a, /a/, /a/b) added for comparing. A field that does
# not exist is an error when the policy is loaded; schemas/input.json lists them all, and editors check by it. Rules cannot
# read the clock or the network: time is input.at. A rule that denies or grants says in its metadata what it is for.
# The gateway's cookbook (docs/cookbook.md) has tested rules to start from.

# METADATA
# scope: package
# title: Rules of this site
# schemas:
#   - input: schema.input
package exitgate

# A reason to deny refuses, whatever is granted.
#
# # METADATA
# # title: No uploads to paste sites
# # description: Nothing that leaves by a paste site can be called back.
# deny contains "nobody uploads to paste sites" if {
# 	"*.paste.example" in input.dest.keys
# 	input.http.method in {"POST", "PUT"}
# }
#
# A rule can grant by itself. The id is what flows will name.
#
# # METADATA
# # title: News in office hours
# # description: Desks may read the news from eight to six, Berlin time.
# grants contains "office-hours" if {
# 	input.stage in {"connect", "request"}
# 	input.host.class == "desk"
# 	input.dest.host == "news.example.com"
# 	[hour, _, _] := time.clock([time.parse_rfc3339_ns(input.at), "Europe/Berlin"])
# 	hour >= 8
# 	hour < 18
# }
