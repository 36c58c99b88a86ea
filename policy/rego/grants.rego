package exitgate

import data.exitgate.match
import data.exitgate.table

grants contains id if {
	input.stage == "resolve"
	granted := table.grants.class[input.host.class]
	some key in input.dest.keys
	some id, grant in granted[key]
	match.holds(grant)
}

grants contains id if {
	input.stage == "resolve"
	granted := table.grants.host[input.host.name]
	some key in input.dest.keys
	some id, grant in granted[key]
	match.holds(grant)
}

grants contains id if {
	input.stage == "connect"
	granted := table.grants.class[input.host.class]
	some key in input.dest.keys
	some id, grant in granted[key]
	match.reaches(grant)
	match.holds(grant)
}

grants contains id if {
	input.stage == "connect"
	granted := table.grants.host[input.host.name]
	some key in input.dest.keys
	some id, grant in granted[key]
	match.reaches(grant)
	match.holds(grant)
}

grants contains id if {
	granted := table.grants.class[input.host.class]
	some key in input.dest.keys
	some id, grant in granted[key]
	match.takes(grant)
	match.holds(grant)
}

grants contains id if {
	granted := table.grants.host[input.host.name]
	some key in input.dest.keys
	some id, grant in granted[key]
	match.takes(grant)
	match.holds(grant)
}
