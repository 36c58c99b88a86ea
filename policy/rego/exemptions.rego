# What is carried unread.
#
# The ids of the exemptions that cover the destination. One id makes the gateway carry the bytes without
# reading them, where no rule denies it.
package exitgate

import data.exitgate.match
import data.exitgate.table

# METADATA
# title: Exemptions of a class
# description: What one class may have carried unread.
exemptions contains id if {
	input.stage == "connect"
	some key in input.dest.keys
	some id, exemption in table.exemptions.class[input.host.class][key]
	match.reaches(exemption)
	match.holds(exemption)
}

# METADATA
# title: Exemptions of a host
# description: What one host may have carried unread.
exemptions contains id if {
	input.stage == "connect"
	some key in input.dest.keys
	some id, exemption in table.exemptions.host[input.host.name][key]
	match.reaches(exemption)
	match.holds(exemption)
}
