# How a request is changed on its way out.
#
# Each element changes every request that is carried while the rule holds: a field is set, added or taken away, a
# parameter of the query or a cookie is set. The gateway's documentation of rewrites has what may be changed. The
# question, and so what is granted and denied, stays as the request came. The base policy changes nothing. Files of the
# policy directory add elements:
#
#     package exitgate
#
#     # METADATA
#     # title: Our tenant alone
#     # description: The provider's sign-in page lets in accounts of example.com and of nobody else.
#     rewrite contains {"header.Modifier": {"name": "Restrict-Access", "value": "example.com"}} if {
#         "*.login.example" in input.dest.keys
#     }
package exitgate

# METADATA
# title: Nothing is changed
# description: The set is there, and empty, so that it can be asked for where no rule adds to it.
rewrite contains element if some element in []
