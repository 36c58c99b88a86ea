# What is granted.
#
# The ids of the grants that allow what is asked. No id refuses. Files of the policy directory add ids:
#
#     package exitgate
#
#     grants contains "office-hours" if { ... }
#
# An id that the grant table knows brings that grant's limits with it.
package exitgate

import data.exitgate.match
import data.exitgate.table

# May this host resolve the name? Where it may go somewhere at it.
grants contains id if {
	input.stage == "resolve"
	some key in input.dest.keys
	some id, grant in table.grants.class[input.host.class][key]
	match.holds(grant)
}

grants contains id if {
	input.stage == "resolve"
	some key in input.dest.keys
	some id, grant in table.grants.host[input.host.name][key]
	match.holds(grant)
}

# May this host reach the destination at all? Where any grant goes there, whatever its path.
grants contains id if {
	input.stage == "connect"
	some key in input.dest.keys
	some id, grant in table.grants.class[input.host.class][key]
	match.reaches(grant)
	match.holds(grant)
}

grants contains id if {
	input.stage == "connect"
	some key in input.dest.keys
	some id, grant in table.grants.host[input.host.name][key]
	match.reaches(grant)
	match.holds(grant)
}

# May this request go out? Where one grant takes all of it. A response is asked about in the same words.
grants contains id if {
	input.stage in ["request", "response", "body"]
	some key in input.dest.keys
	some id, grant in table.grants.class[input.host.class][key]
	match.takes(grant)
	match.holds(grant)
}

grants contains id if {
	input.stage in ["request", "response", "body"]
	some key in input.dest.keys
	some id, grant in table.grants.host[input.host.name][key]
	match.takes(grant)
	match.holds(grant)
}
