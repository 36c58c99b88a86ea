# A class of hosts with what it may reach, a host, and the user data that enrols it when it boots.
#
# Where the gateway is, and the token for it, come from the environment: EXITGATE_API, EXITGATE_TOKEN_FILE, EXITGATE_API_CA.

terraform {
  required_providers {
    exitgate = {
      source = "exitgate/exitgate"
    }
  }
}

provider "exitgate" {}

# What hosts have to trust, and to set.
data "exitgate_trust" "gate" {}
data "exitgate_proxy" "gate" {}

resource "exitgate_class" "build" {
  name        = "build"
  description = "CI runners"
  reason      = "new CI, ticket 4711"
}

resource "exitgate_host" "runner" {
  name   = "runner-07"
  class  = exitgate_class.build.name
  reason = "first runner"
  # No addresses: the host registers its own when it enrols.
}

# Reading packages is for the whole class.
resource "exitgate_grant" "packages" {
  class   = exitgate_class.build.name
  to      = "packages.example.com"
  paths   = ["/simple", "/files"]
  methods = ["GET", "HEAD"]
  lease   = "90d" # it ends when nobody has used it for so long
  reason  = "package downloads"
}

# Publishing is for this one host, and bounded.
resource "exitgate_grant" "publish" {
  host        = exitgate_host.runner.name
  to          = "packages.example.com"
  paths       = ["/upload$"]
  methods     = ["POST"]
  max_request = 64 * 1024 * 1024
  reason      = "releases, ticket 4712"
}

# A pinned application is carried unread, and that ends.
resource "exitgate_exemption" "updater" {
  class  = exitgate_class.build.name
  to     = "updates.example.org"
  until  = timeadd(plantimestamp(), "2160h")
  reason = "the updater accepts no certificate but its own"
  lifecycle {
    ignore_changes = [until] # 90 days from the first apply
  }
}

# One use, one name, one hour: what is left of it in the state and in the user data is worth nothing afterwards.
resource "exitgate_host_token" "runner" {
  class  = exitgate_class.build.name
  host   = exitgate_host.runner.name
  ttl    = "1h"
  reason = "first boot of runner-07"
}

output "user_data" {
  sensitive = true
  value = join("\n", ["#cloud-config", yamlencode({
    write_files = [{
      path        = "/run/exitgate-token"
      permissions = "0600"
      content     = exitgate_host_token.runner.secret
    }]
    runcmd = [
      ["exitgate", "enroll", "--gateway", data.exitgate_trust.gate.enroll, "--fingerprint", data.exitgate_trust.gate.identity,
      "--token-file", "/run/exitgate-token", "--name", exitgate_host.runner.name],
      ["rm", "-f", "/run/exitgate-token"],
    ]
  })])
}

output "proxy" {
  value = data.exitgate_proxy.gate.https
}
