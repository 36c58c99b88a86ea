# What is refused whatever is granted.
#
# Each rule gives a reason: one sentence for the person who is refused. One reason refuses, over any grant and
# any exemption. Files of the policy directory add reasons:
#
#     package exitgate
#
#     deny contains "nobody uploads to paste sites" if {
#         "*.paste.example" in input.dest.keys
#         input.http.method in {"POST", "PUT"}
#     }
package exitgate

unknown_host := concat("", [
	"the gateway does not know this host: register its address and class in the configuration file under hosts:, ",
	"or give it a token",
])

deny contains unknown_host if input.host.class == "unknown"

deny contains unknown_host if input.host.class == ""
