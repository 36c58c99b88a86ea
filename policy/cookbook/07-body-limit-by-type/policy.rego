package exitgate

import data.limits

media_type := lower(trim_space(split(input.http.headers["content-type"][0], ";")[0]))

default largest := 65536

largest := limits[media_type]

# METADATA
# title: Too large for its type
# description: What is larger than its type has any need to be is not what it says it is.
deny contains sprintf("at most %d bytes of this type", [largest]) if {
	input.http.method in {"POST", "PUT", "PATCH"}
	input.http.length > largest
}

# METADATA
# title: A body without a length
# description: What cannot be compared with the limit is over it.
deny contains "declare the length of the body" if {
	input.http.method in {"POST", "PUT", "PATCH"}
	input.http.length < 0
}
