package exitgate

# METADATA
# title: Everything stops
# description: For the hour in which nobody knows yet what is leaving.
deny contains "all egress is stopped: see the incident channel" if data.stop.all

# METADATA
# title: A class stops
# description: The same for the kinds of host that are concerned.
deny contains "egress of this class is stopped: see the incident channel" if input.host.class in data.stop.classes
