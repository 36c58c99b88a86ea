package api

import "time"

// The nouns as they are in JSON: what clients set, then what the gateway sets. A zero time is not sent.

// An Origin is what the gateway says of each entry.
type Origin struct {
	By     string    `json:"by,omitempty"`
	At     time.Time `json:"at,omitzero"`
	Source string    `json:"source,omitempty"` // the file that it stands in, or "store"
}

// A Class is a class of hosts.
type Class struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Audit       bool   `json:"audit"`
	Reason      string `json:"reason"`
	Origin
}

// A Host is a host that the gateway knows.
type Host struct {
	Name      string   `json:"name"`
	Class     string   `json:"class"`
	Addresses []string `json:"addresses"`
	Networks  []string `json:"networks"`
	Disabled  bool     `json:"disabled"`
	Reason    string   `json:"reason"`
	Origin
}

// A HostToken lets hosts enrol.
type HostToken struct {
	ID       string    `json:"id"`
	Class    string    `json:"class"`
	Host     string    `json:"host"`
	Networks []string  `json:"networks"`
	Uses     int64     `json:"uses,omitempty"`
	Used     int64     `json:"used,omitempty"`
	Until    time.Time `json:"until,omitzero"`
	Reason   string    `json:"reason"`
	Secret   string    `json:"secret,omitempty"` // only in the answer that made it
	Origin
}

// A Grant lets a class or a host reach a resource.
type Grant struct {
	ID           string            `json:"id"`
	Class        string            `json:"class"`
	Host         string            `json:"host"`
	To           string            `json:"to"`
	Scheme       string            `json:"scheme"`
	Ports        []int64           `json:"ports"`
	Methods      []string          `json:"methods"`
	Paths        []string          `json:"paths"`
	Headers      map[string]string `json:"headers"`
	MaxRequest   int64             `json:"max_request"`
	MaxResponse  int64             `json:"max_response"`
	EncodedSlash bool              `json:"encoded_slash"`
	Audit        bool              `json:"audit"`
	Reason       string            `json:"reason"`
	Until        time.Time         `json:"until,omitzero"`
	Lease        string            `json:"lease,omitempty"`
	Origin
}

// An Exemption lets a class or a host reach a destination unread.
type Exemption struct {
	ID       string    `json:"id"`
	Class    string    `json:"class"`
	Host     string    `json:"host"`
	To       string    `json:"to"`
	Ports    []int64   `json:"ports"`
	Raw      bool      `json:"raw"`
	MaxBytes int64     `json:"max_bytes"`
	Reason   string    `json:"reason"`
	Until    time.Time `json:"until,omitzero"`
	Origin
}

// Trust is what hosts have to trust.
type Trust struct {
	Roots        string   `json:"roots"`
	Fingerprints []string `json:"fingerprints"`
	Identity     string   `json:"identity"`
	Enroll       string   `json:"enroll"`
}

// Proxy is what hosts set to use the gateway.
type Proxy struct {
	HTTP    string   `json:"http"`
	HTTPS   string   `json:"https"`
	PACURL  string   `json:"pac_url"`
	NoProxy []string `json:"no_proxy"`
}
