# What is refused whatever is granted.
#
# Each rule gives a reason: one sentence for the person who is refused. One reason refuses, over any grant and
# any exemption. Files of the policy directory add reasons:
#
#     package exitgate
#
#     # METADATA
#     # title: No uploads to paste sites
#     # description: Nothing that leaves by a paste site can be called back.
#     deny contains "nobody uploads to paste sites" if {
#         "*.paste.example" in input.dest.keys
#         input.http.method in {"POST", "PUT"}
#     }
package exitgate

unknown_host := concat("", [
	"the gateway does not know this host: register its address and class in the configuration file under hosts:, ",
	"or give it a token",
])

# METADATA
# title: Hosts that are not known
# description: Whatever is granted to a class, a source that no class was given to reaches nothing.
deny contains unknown_host if input.host.class == "unknown"

# METADATA
# title: Hosts without a class
# description: The class of a source that is not known is unknown; an empty one is a mistake, and refuses.
deny contains unknown_host if input.host.class == ""
