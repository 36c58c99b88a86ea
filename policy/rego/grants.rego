package exitgate

import data.exitgate.match
import data.exitgate.table

# METADATA
# title: Names of a class
# description: A class may resolve the names that some grant of it reaches.
grants contains id if {
	input.stage == "resolve"
	granted := table.grants.class[input.host.class]
	some key in input.dest.keys
	some id, grant in granted[key]
	match.holds(grant)
}

# METADATA
# title: Names of a host
# description: A host may resolve the names that some grant of it reaches.
grants contains id if {
	input.stage == "resolve"
	granted := table.grants.host[input.host.name]
	some key in input.dest.keys
	some id, grant in granted[key]
	match.holds(grant)
}

# METADATA
# title: Connections of a class
# description: A class may connect where some grant of it leads; what it asks for there is judged next.
grants contains id if {
	input.stage == "connect"
	granted := table.grants.class[input.host.class]
	some key in input.dest.keys
	some id, grant in granted[key]
	match.reaches(grant)
	match.holds(grant)
}

# METADATA
# title: Connections of a host
# description: A host may connect where some grant of it leads; what it asks for there is judged next.
grants contains id if {
	input.stage == "connect"
	granted := table.grants.host[input.host.name]
	some key in input.dest.keys
	some id, grant in granted[key]
	match.reaches(grant)
	match.holds(grant)
}

# METADATA
# title: Requests of a class
# description: A request is granted by a grant of which it meets every condition.
grants contains id if {
	granted := table.grants.class[input.host.class]
	some key in input.dest.keys
	some id, grant in granted[key]
	match.takes(grant)
	match.holds(grant)
}

# METADATA
# title: Requests of a host
# description: The same, for what is granted to one host.
grants contains id if {
	granted := table.grants.host[input.host.name]
	some key in input.dest.keys
	some id, grant in granted[key]
	match.takes(grant)
	match.holds(grant)
}
